"""Kubernetes' Debian packages: their names, what is in them, what apt reads of them, and what dpkg runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.debian_node import UNITS, DebianNode, content, scripts_of

from lab import process
from lab.components.kubernetes.packages import (
    COMPRESSED,
    FOLDER,
    KUBERNETES,
    PACKAGES,
    PLAIN,
    Package,
    control,
    maintainer_scripts,
    package_version,
    render_add,
    render_install,
)

KUBEADM, KUBELET, KUBECTL, CRI_TOOLS = PACKAGES
CAME = "/var/lib/klab/kubernetes-1.37.2/bin"
needs_dpkg = pytest.mark.skipif(not process.have("dpkg-deb"), reason="dpkg-deb is not installed")


@pytest.fixture
def node(tmp_path: Path) -> DebianNode:
    made = DebianNode(tmp_path / "node")
    made.programs("/usr/bin", *(package.program for package in PACKAGES))
    return made


def test_they_are_called_as_upstreams() -> None:
    assert [package.name for package in PACKAGES] == ["kubeadm", "kubelet", "kubectl", "cri-tools"]
    assert PACKAGES[:3] == KUBERNETES
    assert package_version("1.37.2") == "1.37.2-1.1"


def test_a_control_file() -> None:
    fields = dict(line.split(": ", 1) for line in control(KUBELET, "1.37.2-1.1").splitlines())
    assert (fields["Package"], fields["Version"], fields["Architecture"]) == ("kubelet", "1.37.2-1.1", "amd64")
    assert "Depends" not in fields
    assert control(KUBELET, "1").endswith("\n")


@needs_dpkg
def test_what_is_in_them(node: DebianNode, tmp_path: Path) -> None:
    node.run(f"set -eu\n{render_add(dict.fromkeys(PACKAGES, '1.37.2'), '/usr/bin', PLAIN)}")
    inside = {name: content(path) for name, path in node.packages.items()}
    assert inside == {
        "cri-tools_1.37.2-1.1_amd64.deb": ["-rwxr-xr-x root/root ./usr/bin/crictl"],
        "kubeadm_1.37.2-1.1_amd64.deb": [
            "-rwxr-xr-x root/root ./usr/bin/kubeadm",
            f"-rw-r--r-- root/root .{UNITS}/kubelet.service.d/10-kubeadm.conf",
        ],
        "kubectl_1.37.2-1.1_amd64.deb": ["-rwxr-xr-x root/root ./usr/bin/kubectl"],
        "kubelet_1.37.2-1.1_amd64.deb": [
            "-rwxr-xr-x root/root ./usr/bin/kubelet",
            f"-rw-r--r-- root/root .{UNITS}/kubelet.service",
        ],
    }
    parts = scripts_of(node.packages["kubelet_1.37.2-1.1_amd64.deb"], tmp_path / "control")
    assert parts == {"control": control(KUBELET, "1.37.2-1.1"), **maintainer_scripts(KUBELET)}
    assert not list(node.path(FOLDER).glob(".*"))


@needs_dpkg
@pytest.mark.parametrize("compression", [PLAIN, COMPRESSED])
def test_they_repeat(tmp_path: Path, compression: str) -> None:
    made = []
    for name, mask in (("one", 0o022), ("two", 0o077)):
        node = DebianNode(tmp_path / name)
        node.programs("/usr/bin", "kubeadm", "kubelet")
        before = os.umask(mask)
        try:
            node.run(f"set -eu\n{render_add({KUBEADM: '1.37.2', KUBELET: '1.37.2'}, '/usr/bin', compression)}")
        finally:
            os.umask(before)
        files = [*node.packages.values(), node.path(FOLDER) / "Packages"]
        made.append({file.name: file.read_bytes() for file in files})
    assert made[0] == made[1]
    assert len(made[0]) == 3


@needs_dpkg
def test_apt_reads_those_that_were_there_as_well(node: DebianNode) -> None:
    node.run(f"set -eu\n{render_add({KUBEADM: '1.36.3', CRI_TOOLS: '1.37.0'}, '/usr/bin', PLAIN)}")
    node.programs(CAME, "kubeadm", text="of the next version")
    for _ in range(2):
        node.run(f"set -eu\n{render_add({KUBEADM: '1.37.2'}, CAME, PLAIN)}")
    listed = [(each["Package"], each["Version"]) for each in node.index]
    assert listed == [("cri-tools", "1.37.0-1.1"), ("kubeadm", "1.36.3-1.1"), ("kubeadm", "1.37.2-1.1")]
    for each in node.index:
        file = node.path(FOLDER) / each["Filename"]
        assert int(each["Size"]) == file.stat().st_size
        summed = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout
        assert each["SHA256"] == summed.split()[0]
    assert node.source_list == f"deb [trusted=yes lang=none] file:{node.path(FOLDER)} ./\n"
    assert all(line.startswith("apt-get update -qq -o Dir::Etc::SourceList=") for line in node.log)


@needs_dpkg
def test_a_node_whose_units_are_gone(node: DebianNode) -> None:
    """Somebody removed the kubelet; its program comes back without the unit, rather than not at all."""
    node.path(f"{UNITS}/kubelet.service").unlink()
    node.run(f"set -eu\n{render_add({KUBELET: '1.37.2'}, '/usr/bin', PLAIN)}")
    (package,) = node.packages.values()
    assert content(package) == ["-rwxr-xr-x root/root ./usr/bin/kubelet"]


@needs_dpkg
def test_a_box_installs_them_and_keeps_apts_list_alone(node: DebianNode) -> None:
    lists = node.path("/var/lib/apt/lists")
    (lists / "partial").mkdir(parents=True)
    (lists / "lock").touch()
    (lists / "klab_Packages").touch()
    node.run(render_install(dict.fromkeys(PACKAGES, "1.37.2")))
    assert [path.name for path in lists.iterdir()] == ["klab_Packages"]
    installed = next(line for line in node.log if line.startswith("dpkg "))
    assert all(f"{FOLDER}/{name}" in installed for name in node.packages)
    assert node.log.index(installed) > 0


def test_a_box_gets_nothing_of_half_a_script() -> None:
    script = render_install(dict.fromkeys(PACKAGES, "1.37.2"))
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    half = subprocess.run(["bash", "-s"], input=script[: len(script) // 2], text=True, capture_output=True, check=False)
    assert "unexpected" in half.stderr


def ran(script: str, folder: Path, *arguments: str, enabled: bool = True) -> list[str]:
    """What a maintainer script asks of systemd."""
    log = folder / "log"
    log.unlink(missing_ok=True)
    systemctl = folder / "systemctl"
    said = f'case "$*" in *is-enabled*) exit {0 if enabled else 1};; *) echo "$*" >> "{log}";; esac'
    systemctl.write_text(f"#!/bin/sh\n{said}\n")
    systemctl.chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    text = script.replace("/run/systemd/system", str(folder / "systemd"))
    argv = ["sh", "-s", *arguments]
    assert subprocess.run(argv, input=text, text=True, env=env, check=False).returncode == 0
    return log.read_text().splitlines() if log.exists() else []


def test_what_dpkg_runs_for_the_kubelet(tmp_path: Path) -> None:
    scripts = maintainer_scripts(KUBELET)
    assert [name for name, script in scripts.items() if ran(script, tmp_path, "configure")] == []  # no systemd here
    (tmp_path / "systemd").mkdir()
    start = "start --no-block kubelet"
    assert ran(scripts["postinst"], tmp_path, "configure", "") == ["daemon-reload", start]
    assert ran(scripts["postinst"], tmp_path, "configure", "", enabled=False) == ["daemon-reload"]
    # An upgrade: the lesson restarts it.
    assert ran(scripts["postinst"], tmp_path, "configure", "1.36.3-1.1") == ["daemon-reload"]
    assert ran(scripts["prerm"], tmp_path, "upgrade", "1.37.2-1.1") == []
    assert ran(scripts["prerm"], tmp_path, "remove") == ["stop kubelet"]
    assert ran(scripts["postrm"], tmp_path, "remove") == ["daemon-reload"]
    assert ran(scripts["postrm"], tmp_path, "purge") == []


@pytest.mark.parametrize(("package", "names"), [(KUBEADM, ["postinst", "postrm"]), (KUBECTL, []), (CRI_TOOLS, [])])
def test_what_dpkg_runs_for_the_others(package: Package, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "systemd").mkdir()
    scripts = maintainer_scripts(package)
    assert list(scripts) == names
    for name, script in scripts.items():
        assert ran(script, tmp_path, {"postinst": "configure", "postrm": "remove"}[name]) == ["daemon-reload"]
