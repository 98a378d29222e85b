"""The built box, as it is: booted over AHCI from the very VMDK that VirtualBox gets, with no network at all.

VirtualBox itself cannot run here. Its BIOS, like QEMU's, reads the boot sector through
AHCI; what is proven is that disk, boot loader, initramfs and kernel need nothing of virtio.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import time
from pathlib import Path

import pytest

from lab import process
from lab.boxes.manifest import Box
from lab.boxes.recipe import load_recipe
from lab.boxes.registry import repository
from lab.boxes.store import ensure_vmdk, find_box, verify
from lab.components.kubernetes import DEFAULT
from lab.components.kubernetes.packages import FOLDER, package_version
from lab.disks.seed_iso import write_iso
from lab.errors import BoxError
from lab.scenario.catalog import load_catalog
from lab.store import Home

BOOT_SECONDS = 600
USER_DATA = """#cloud-config
hostname: ahci
users:
  - name: vagrant
    lock_passwd: true
write_files:
  - path: /etc/klab/node.sh
    content: |
      {
      echo "test: root $(findmnt -no SOURCE /)"
      for image in $(ctr -n k8s.io images ls -q); do echo "test: image $image"; done
      for repository in $(curl -s http://127.0.0.1:5000/v2/_catalog | tr -c 'a-z0-9./-' ' '); do
        echo "test: repository $repository"
      done
      ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d docker.io/library/nginx:latest > /dev/null 2>&1
      echo "test: pull $?"
      ctr -n k8s.io run --rm docker.io/library/busybox:latest one echo "test: container ran"
      nproc --all > /dev/null && sysctl -n net.ipv4.ip_forward | sed 's/^/test: forward /'
      cat /etc/apt/sources.list /etc/apt/sources.list.d/* | grep -E '^(deb|URIs)' | sed 's/^/test: apt /'
      swapon --noheadings | sed 's/^/test: swap /'
      systemctl is-enabled UNITS | tr '\\n' ' ' | sed 's/^/test: enabled /'
      echo
      apt-cache madison PACKAGES | sed 's/^ */test: madison /'
      dpkg-query -W -f 'test: package ${Package} ${Version} ${db:Status-Status}\\n' PACKAGES
      dpkg -L kubelet kubeadm | sed 's/^/test: owns /'
      apt-mark hold kubeadm kubelet kubectl | sed 's/^/test: held /'
      apt-mark unhold kubeadm kubelet kubectl > /dev/null
      for words in remove install; do
        apt-get -qq -y $words kubelet cri-tools > /dev/null 2>&1; echo "test: $words $?"
      done
      echo "test: kubelet $(kubelet --version)"
      crictl --version | sed 's/^/test: crictl /'
      helm version --short | sed 's/^/test: helm /'
      for program in TOOLS; do echo "test: has $(command -v $program)"; done
      profiles=$(wc -l < /sys/kernel/security/apparmor/profiles)
      echo "test: apparmor $(cat /sys/module/apparmor/parameters/enabled) $profiles"
      systemctl start iscsid; echo "test: iscsid $? $(grep -c ^InitiatorName= /etc/iscsi/initiatorname.iscsi)"
      modprobe -a nfsv4 iscsi_tcp; echo "test: modules $?"
      echo "test: end"
      # The login on this console hangs up on its readers; each line opens it again.
      } 2>&1 | while IFS= read -r line; do echo "$line" > /dev/ttyS0; done
"""
PACKAGES = ("kubeadm", "kubelet", "kubectl", "cri-tools")
# What a node has and runs only when it is asked for.
UNITS = ("kubelet", "haproxy", "keepalived", "rpcbind.socket", "rpcbind.service", "nfs-client.target", "open-iscsi")
TOOLS = ("apparmor_parser", "aa-status", "aa-complain", "mount.nfs", "mount.nfs4", "iscsiadm")
for name, words in {"PACKAGES": PACKAGES, "UNITS": UNITS, "TOOLS": TOOLS}.items():
    USER_DATA = USER_DATA.replace(f" {name}", f" {' '.join(words)}")


@pytest.fixture(scope="module")
def box() -> Box:
    home = Home.default()
    try:
        return find_box(home, "debian-13", DEFAULT)
    except BoxError as error:
        pytest.fail(f"{error.message}; {error.hint}")


@pytest.fixture(scope="module")
def console(box: Box, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the machine printed until it had done the test's commands and shown a login."""
    work = tmp_path_factory.mktemp("ahci")
    disk, seed, log = work / "disk.qcow2", work / "seed.iso", work / "console.log"
    vmdk = ensure_vmdk(Home.default(), box).vmdk
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "vmdk", "-b", vmdk, disk], timeout=60)
    files = {
        "user-data": USER_DATA,
        "meta-data": "instance-id: ahci\nlocal-hostname: ahci\n",
        # QEMU's own network, which leads nowhere: without an address the boot would wait two minutes for one.
        "network-config": "version: 2\nethernets: {eth0: {dhcp4: true}}\n",
    }
    write_iso(files, seed)
    qemu = [process.find("qemu-system-x86_64"), "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]
    qemu += [
        "-smp",
        "2",
        "-m",
        "1536",
        "-nic",
        "user,model=virtio-net-pci,restrict=on",
        "-display",
        "none",
        "-monitor",
        "none",
    ]
    qemu += ["-drive", f"if=none,id=disk,file={disk},cache=unsafe", "-device", "ide-hd,drive=disk,bus=ide.0"]
    qemu += ["-drive", f"if=none,id=seed,file={seed},format=raw,readonly=on", "-device", "ide-cd,drive=seed,bus=ide.1"]
    qemu += ["-serial", f"file:{log}"]
    machine = subprocess.Popen(qemu, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return _follow(log, machine)
    finally:
        machine.kill()
        machine.wait()


def _follow(log: Path, machine: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + BOOT_SECONDS
    text = ""
    while time.monotonic() < end:
        text = log.read_text(errors="replace") if log.exists() else ""
        if "test: end" in text and "login:" in text and "Datasource DataSourceNoCloud" in text:
            return text
        assert machine.poll() is None, f"QEMU ended:\n{text[-2000:]}"
        time.sleep(1)
    pytest.fail(f"not up within {BOOT_SECONDS} s:\n{text[-2000:]}")


def said(console: str, what: str) -> list[str]:
    """What the node reported under a heading."""
    # Not at the start of a line: systemd's terminal queries come in between.
    return re.findall(rf"test: {what} (.*?)\r?$", console, re.MULTILINE)


def test_it_boots_from_a_sata_disk_by_its_own_boot_loader(console: str) -> None:
    assert said(console, "root") == ["/dev/sda1"]


def test_every_image_is_there_and_in_the_nodes_own_registry(console: str, box: Box) -> None:
    version = load_catalog().kubernetes[box.kubernetes]
    wanted = {*version.images.values(), "docker.io/library/nginx:latest", "docker.io/library/busybox:latest"}
    assert set(said(console, "image")) == wanted
    assert {repository(ref)[0] for ref in wanted} <= set(said(console, "repository"))


def test_a_pull_that_asks_a_registry_works_without_a_network(console: str) -> None:
    assert said(console, "pull") == ["0"]
    assert said(console, "container") == ["ran"]


def test_the_node_is_prepared_and_nothing_runs_too_early(console: str) -> None:
    assert said(console, "forward") == ["1"]
    # Debian's archive and its security updates, from its public servers.
    servers = said(console, "apt")
    own = [server for server in servers if server.startswith("deb ")]
    assert own == [f"deb [trusted=yes lang=none] file:{FOLDER} ./"]
    servers = [server for server in servers if server not in own]
    assert [server.rpartition("/")[2] for server in servers] == ["debian", "debian-security"]
    assert all(server.startswith("URIs: https://") for server in servers), servers
    assert said(console, "swap") == []
    assert [line.split() for line in said(console, "enabled")] == [["disabled"] * len(UNITS)]


def test_kubernetes_is_debian_packages_that_come_and_go_without_a_network(console: str, box: Box) -> None:
    (crictl,) = (line.split()[-1].removeprefix("v") for line in said(console, "crictl"))
    versions = {name: package_version(box.kubernetes) for name in PACKAGES} | {"cri-tools": package_version(crictl)}
    listed = [[word.strip() for word in line.split("|")] for line in said(console, "madison")]
    assert listed == [[name, version, f"file:{FOLDER} ./ Packages"] for name, version in versions.items()]
    known = dict(line.split(" ", 1) for line in said(console, "package"))
    assert known == {name: f"{version} installed" for name, version in versions.items()}
    units = "/usr/lib/systemd/system/kubelet.service"
    assert {"/usr/bin/kubelet", "/usr/bin/kubeadm", units, f"{units}.d/10-kubeadm.conf"} <= set(said(console, "owns"))
    assert [line.split()[0] for line in said(console, "held")] == ["kubeadm", "kubelet", "kubectl"]
    assert (said(console, "remove"), said(console, "install")) == (["0"], ["0"])
    assert said(console, "kubelet") == [f"Kubernetes v{box.kubernetes}"]


def test_the_node_has_the_tools_for_charts_profiles_and_volumes(console: str) -> None:
    (helm,) = (program.version for program in load_recipe("debian-13", DEFAULT).programs if program.name == "helm")
    assert [line.partition("+")[0] for line in said(console, "helm")] == [helm]
    assert [Path(path).name for path in said(console, "has")] == list(TOOLS)
    # No profile but those that a lesson or a container brings.
    assert said(console, "apparmor") == ["Y 0"]
    # It starts, and gives the node a name of its own.
    assert said(console, "iscsid") == ["0 1"]
    assert said(console, "modules") == ["0"]


def test_the_box_holds_no_key_no_identity_and_no_password(box: Box) -> None:
    lines = dict(line.split(" ", 3)[::3][::-1] for line in box.contents.read_text().splitlines())
    assert not [path for path in lines if "ssh_host_" in path or path.endswith("authorized_keys")]
    assert lines["/etc/iscsi/initiatorname.iscsi"] == hashlib.sha256(b"GenerateName=yes\n").hexdigest()
    assert lines["/etc/machine-id"] == hashlib.sha256(b"").hexdigest()
    held = (
        "/root/.ssh/",
        "/home/vagrant/.ssh",
        "/var/lib/cloud/",
        "/etc/kubernetes/pki",
        "/var/lib/systemd/random-seed",
    )
    assert not [path for path in lines if path.startswith(held)]


def test_every_byte_is_as_it_was_built(box: Box) -> None:
    verify(Home.default(), box)
