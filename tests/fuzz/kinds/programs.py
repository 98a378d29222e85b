"""What other programs print: consoles, a node's own words, VBoxManage, Vagrant, ip, QEMU, apt, libvirt's XML."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast
from unittest import mock
from xml.etree import ElementTree

from fuzz.harness import Target
from fuzz.mutations import json_texts, texts

from lab.boxes.debian import choose_sources, public_servers
from lab.boxes.gomodules import checksum_database
from lab.cluster.events import Journal
from lab.cluster.observe.node_probe import LAST_KEY
from lab.cluster.observe.node_report import parse
from lab.cluster.observe.validity import ask
from lab.cluster.wait.console import Console
from lab.errors import LabError
from lab.host import capacity, namespaces
from lab.host.firewalls import parse_backend
from lab.machines import ssh_clock
from lab.machines.libvirt import definitions, guest_agent, platform, slow_clocks
from lab.machines.ownership import Owner, owner_in_description, owner_in_metadata
from lab.machines.vagrant import command as vagrant
from lab.machines.vagrant.failures import explain
from lab.machines.virtualbox import host as virtualbox_host
from lab.machines.virtualbox import output as virtualbox
from lab.machines.virtualbox.output import parse_names, parse_shots
from lab.process import Completed
from lab.render.node_script import LOG_MARK, MARK
from lab.store import Record

RECORD = Record("id", "demo", "fake", "box", 0, "ready", 0.0)
OWNER = Owner("cb7b241c-70ce-456d-a4d8-2e6b37ed0cff", 3, 1795229810.25)
CONSOLE = f"""\
[    0.000000] Linux version 6.1.0-28-cloud-amd64
\x1b[32mcloud-init[533]: Cloud-init v. 22.4.2 running 'init' at Sat, 21 Nov 2026 02:40:00 +0000\x1b[0m
cloud-init[533]: 2026-11-21 02:40:01,000 - util.py[WARNING]: Failed to run module
{MARK} cloud-init begin
{MARK} boot done
{MARK} init begin kubeadm
{LOG_MARK} error execution phase preflight
{MARK} init failed exit code 1
cp1 login: """
NODE = f"""\
begin=100.25
process=etcd S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 10 0 5000 0 0
process=kubelet S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 10 0 9900 0 0
health=200 http://127.0.0.1:2381/readyz
unit.Id=kubelet.service
unit.LoadState=loaded
unit.ActiveState=active
unit.SubState=running
unit.UnitFileState=enabled
unit.Result=success
unit=
unit.Id=containerd.service
unit.ActiveState=failed
member=yes
kubelet=E1121 failed to run Kubelet: swap is on
disk=91
free=2000000
inodes=12
swap=/dev/sda2
address=192.168.56.11/24
subnet=yes
cni=/etc/cni/net.d/10-flannel.conflist
manifest=2405 1795229000 /etc/kubernetes/manifests/etcd.yaml
manifest=0 1795229000 /etc/kubernetes/manifests/kube-apiserver.yaml
certificate=/etc/kubernetes/pki/ca.crt CERTIFICATE
images=seen
image=registry.k8s.io/pause:3.10.1
end=101.50
{LAST_KEY}1795229810.123456789
"""
CERTIFICATES = """\
now=1795229810
certificate=/etc/kubernetes/pki/ca.crt CERTIFICATE
certificate=/etc/kubernetes/admin.conf UEVNCg==
"""
MACHINES = """"klab-demo_cp1" {cd0e7372-2c36-5e67-aba5-542d191bfb1c}
"a {strange} name" {bab2f4c0-2c36-5e67-aba5-542d191bfb1c}
"<inaccessible>" {11111111-2c36-5e67-aba5-542d191bfb1c}
"""
# The beginning of VirtualBox 7.0's, transcribed (src/VBox/Frontends/VBoxManage/VBoxManageList.cpp).
PROPERTIES = """API version:                     7_0
Minimum guest RAM size:          4 Megabytes
Default machine folder:          /home/me/VirtualBox VMs
Raw-mode Supported:              no
"""
# One host-only interface of VirtualBox 7.2, transcribed (listNetworkInterfaces in the same file).
INTERFACES = """Name:            vboxnet0
GUID:            786f6276-656e-4074-8000-0a0027000000
DHCP:            Disabled
IPAddress:       192.168.56.1
NetworkMask:     255.255.255.0
HardwareAddress: 0a:00:27:00:00:00
Status:          Down

Name:            vboxnet1
IPAddress:       192.168.57.1
NetworkMask:     255.255.255.0
"""
# showMediumInfo in src/VBox/Frontends/VBoxManage/VBoxManageDisk.cpp, transcribed.
MEDIUM = """UUID:           5d7c2f36-9df2-4d5b-9b0c-3d52a1bb3b9e
Parent UUID:    base
State:          created
Type:           normal (base)
Location:       /home/me/VirtualBox VMs/klab_1/disk.vmdk
Storage format: VMDK
Format variant: dynamic default
Capacity:       20480 MBytes
Size on disk:   2048 MBytes
Encryption:     disabled
Child UUIDs:    0b1f0f0c-4ac7-4a87-a4d6-5e5f6ba0c0d4
                9a0d9f8e-9f63-4e0e-8b59-8f1b7a5b1f27
"""
INFO = """name="klab-demo_cp1"
groups="/"
UUID="cd0e7372-2c36-5e67-aba5-542d191bfb1c"
memory=2048
VMState="running"
"SATA-0-0"="/home/me/VirtualBox VMs/klab-demo_cp1/box-disk001.vmdk"
"SATA-1-0"="/home/me/labs/demo/seeds/cp1.iso"
"SATA-IsEjected-1-0"="off"
description="first line
klab lab cb7b241c-70ce-456d-a4d8-2e6b37ed0cff seat 0 epoch 1.5"
GuestMemoryBalloon=0
"""
SNAPSHOTS = """SnapshotName="one"
SnapshotUUID="7e522742-f06b-4007-b7c0-1ca7e6cf6e18"
SnapshotName-1="two"
CurrentSnapshotName="two"
"""
SETTINGS = """<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
  <Machine uuid="{cd0e7372}" name="klab-demo_cp1">
    <MediaRegistry><HardDisks><HardDisk uuid="{base}" location="/boxes/base.vmdk">
      <HardDisk uuid="{one}" location="Snapshots/{one}.vmdk">
        <HardDisk uuid="{two}" location="Snapshots/{two}.vmdk"/></HardDisk></HardDisk></HardDisks></MediaRegistry>
    <Snapshot uuid="{1}" name="one" timeStamp="2026-11-21T02:40:00Z" stateFile="Snapshots/a.sav">
      <Hardware><StorageControllers><StorageController name="SATA">
        <AttachedDevice type="HardDisk"><Image uuid="{one}"/></AttachedDevice>
      </StorageController></StorageControllers></Hardware>
      <Snapshots><Snapshot uuid="{2}" name="two" timeStamp="2026-11-21T02:41:00Z"/></Snapshots>
    </Snapshot>
  </Machine>
</VirtualBox>
"""
VAGRANT = """1795229810,cp1,metadata,provider,libvirt
1795229810,cp1,provider-name,libvirt
1795229810,cp1,state,running
1795229810,,box-name,klab/a
1795229810,,box-provider,libvirt
1795229810,,box-version,1.0.0
1795229810,,plugin-name,vagrant-libvirt
1795229810,vagrant-libvirt,plugin-version,0.11.2%!(VAGRANT_COMMA) system
"""
UP = """Bringing machine 'cp1' up with 'libvirt' provider...
==> cp1: Waiting for domain to get an IP address...
Name `klab-demo_cp1` of domain about to create is already taken.
"""
ROUTES = json.dumps(
    [
        {"dst": "default", "gateway": "10.0.0.1", "dev": "eth0", "flags": []},
        {"dst": "192.168.56.0/24", "dev": "virbr1", "scope": "link", "prefsrc": "192.168.56.1", "flags": ["linkdown"]},
        {"type": "blackhole", "dst": "10.9.0.0/16", "flags": []},
    ]
)
RESOLVERS = "# made by hand\nnameserver 192.168.1.1\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nsearch lan\n"
NEIGHBOURS = json.dumps(
    {
        "way": [{"dst": "192.168.56.10", "dev": "virbr1", "prefsrc": "192.168.56.1"}],
        "there": [{"dst": "192.168.56.10", "dev": "virbr1", "lladdr": "52:54:00:d2:da:db", "state": ["REACHABLE"]}],
    }
)
NETWORK_CONF = """# first available backend from the following list:
#
#     [iptables, nftables]
#
#firewall_backend = "iptables"
"""
TARGETS_OF_APT = """http://mirror.example/debian|Debian|Debian|bookworm
http://mirror.example/security|Debian|Debian-Security|bookworm-security
"""
CLOUD_CFG = """system_info:
  package_mirrors:
    - arches: [default]
      failsafe:
        primary: https://public.example/debian
        security: https://public.example/debian-security
"""
DOMAIN = """
<domain type='qemu'>
  <name>klab-demo_cp1</name><uuid>cd0e7372-2c36-5e67-aba5-542d191bfb1c</uuid>
  <description>klab lab cb7b241c-70ce-456d-a4d8-2e6b37ed0cff seat 3 epoch 1.5</description>
  <metadata><klab:lab xmlns:klab='urn:klab:lab:1' id='cb7b241c' seat='3' epoch='1.5'/></metadata>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    <disk type='file' device='disk'><source file='/a.img'/>
      <backingStore type='file'><source file='/b.img'/></backingStore>
      <target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><source file='/cp1-seed.iso'/><target dev='sda' bus='sata'/></disk>
    <interface type='network'><mac address='52:54:00:D2:da:db'/></interface>
  </devices>
</domain>"""
NETWORK = """<network><name>klab-demo</name><ip address='172.28.0.1' netmask='255.255.255.0'><dhcp>
  <range start='172.28.0.2' end='172.28.0.254'/><host mac='52:54:00:d2:da:db' name='cp1' ip='172.28.0.10'/>
</dhcp></ip></network>"""
POOL = "<pool type='dir'><name>klab</name><target><path>/var/lib/klab</path></target></pool>"
AGENT = json.dumps(
    {"started": {"pid": 7}, "ended": {"exited": True, "exitcode": 0, "out-data": base64.b64encode(b"x").decode()}}
)
MACHINE_CLOCK = (
    '{"return": {"tm_year": 126, "tm_sec": 7, "tm_hour": 15, "tm_min": 16, "tm_mon": 10, "tm_mday": 29}}'  # recorded
)
QEMU_VERSION = '{"return":{"qemu":{"micro":2,"minor":0,"major":10},"package":"Debian 1:10.0.2+ds-2"},"id":"libvirt-9"}'


def _of(*samples: str) -> Callable[[Path], list[str]]:
    return lambda _folder: list(samples)


def _certificate(folder: Path) -> str:
    from lab.cluster.secrets import load_or_make
    from lab.store import LabFolder

    lab = LabFolder(folder / "lab")
    load_or_make(lab)
    lines = (lab.path / "pki" / "ca.crt").read_text().splitlines()
    return "".join(lines[1:-1])


def _with_certificate(sample: str) -> Callable[[Path], list[str]]:
    return lambda folder: [sample.replace("CERTIFICATE", _certificate(folder))]


def console(text: str, folder: Path) -> None:
    file = folder / "cp1.log"
    found, journal = Console("cp1", file), Journal(folder / "events.jsonl")
    data = text.encode("utf-8", "surrogatepass")
    for end in (len(data) // 2, len(data)):
        file.write_bytes(data[:end])
        found.read(journal)
    assert len(found.tail()) <= 200
    assert sum(map(len, found.tail())) <= 2 * len(text) + 100


def node(text: str, _folder: Path) -> None:
    report = parse(text, RECORD, 1.0, 2.0)
    assert all(isinstance(days, float) for _, days in report.certificates)
    assert all(age >= 0 for age in report.manifests.values())


class _Told:
    """Machines of which a node prints that."""

    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, name: str, words: object, seconds: float) -> Completed:
        return Completed((name,), 0, self.text, "")


def certificates(text: str, _folder: Path) -> None:
    told = ask(cast(Any, _Told(text)), "cp1")
    told.clock.timestamp()
    for each in told.found:
        if each.certificate is not None:
            each.certificate.not_valid_after_utc.timestamp()


def clock(text: str, _folder: Path) -> None:
    behind = ssh_clock.set_clock(lambda _words: Completed(("date",), 0, text, ""), lambda: 1795229811.5)
    assert abs(behind) < float("inf")


def agent(text: str, _folder: Path) -> None:
    data = json.loads(text) if text[:1] == "{" else {}
    domain = mock.Mock()
    domain.name.return_value = "klab-demo_cp1"

    def ask_agent(_domain: object, question: str, *_: object) -> str:
        started = json.loads(question)["execute"] == "guest-exec"
        return json.dumps({"return": data.get("started" if started else "ended")})

    with mock.patch("libvirt_qemu.qemuAgentCommand", ask_agent), mock.patch.object(guest_agent, "POLL_SECONDS", 0.001):
        done = guest_agent.run(domain, ["true"], 0.01)
    assert done is None or (isinstance(done.code, int) and isinstance(done.stdout + done.stderr, str))


def qemu_version(text: str, _folder: Path) -> None:
    found = platform.version_told(text)
    assert found is None or len(found.split(".")) == 3


def machine_clock(text: str, _folder: Path) -> None:
    found = slow_clocks.moment(text)
    assert found is None or isinstance(found, float)


def whole_json(act: Callable[[str, Path], None]) -> Callable[[str, Path], None]:
    """For a target of which the harness itself reads the input: what is no JSON object is refused here."""

    def first(text: str, folder: Path) -> None:
        try:
            sound = isinstance(json.loads(text), dict)
        except (ValueError, RecursionError):
            sound = False
        if not sound:
            raise LabError("the harness wants an object")
        act(text, folder)

    return first


def machines(text: str, _folder: Path) -> None:
    for name, identity in virtualbox.parse_machines(text).items():
        assert isinstance(name, str)
        assert len(identity) == 36


def machine_folder(text: str, _folder: Path) -> None:
    assert virtualbox.parse_machine_folder(text)[:1] in {"", "/"}


def interfaces(text: str, _folder: Path) -> None:
    for name, network in virtualbox.parse_interfaces(text).items():
        assert name
        assert network.prefixlen <= 32


def version(text: str, _folder: Path) -> None:
    found = virtualbox_host.parse_version(text)
    assert found is None or len(found) == 3


def medium(text: str, _folder: Path) -> None:
    found = virtualbox.parse_medium(text)
    assert found.mib >= 0
    assert all(len(child) == 36 for child in found.children)


def info(text: str, _folder: Path) -> None:
    found = virtualbox.parse_info(text)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in found.items())
    virtualbox.state_of(found)
    virtualbox.parse_disks(found)
    virtualbox.dvd_slots(found, "cp1.iso")
    owner_in_description(found.get("description", ""))


def names(text: str, _folder: Path) -> None:
    assert all(isinstance(name, str) for name in parse_names(text))


def shots(text: str, folder: Path) -> None:
    for shot in parse_shots(text, folder).values():
        assert all(disk.is_relative_to(folder) for disk in shot.disks)
        str(shot.state)


def vagrant_says(text: str, folder: Path) -> None:
    answer = Completed(("vagrant",), 0, text, "")
    with (
        mock.patch.object(vagrant.shutil, "which", return_value="/usr/bin/vagrant"),
        mock.patch.object(vagrant.process, "run", return_value=answer),
    ):
        found = vagrant.Vagrant(folder)
        if text.startswith("Vagrant"):
            assert found.version()
        else:
            for word in (*found.status().values(), *found.boxes(), *found.plugins()):
                assert word is None or isinstance(word, str)


def vagrant_failed(text: str, _folder: Path) -> None:
    for done in (Completed(("vagrant",), 1, text, ""), Completed(("vagrant",), 1, "", text)):
        error = explain(done, cancelled=False)
        assert error.message
        assert error.hint


def routes(text: str, _folder: Path) -> None:
    for route in capacity.parse_routes(text):
        assert route.network.version == 4
        assert isinstance(route.interface, str)
    assert all(gateway.version == 4 for gateway in capacity.parse_gateways(text))


def resolvers(text: str, _folder: Path) -> None:
    assert not any(server.is_loopback for server in capacity.parse_resolvers(text))


def neighbours(text: str, _folder: Path) -> None:
    data = json.loads(text)

    def run(words: list[str], **_options: object) -> Completed:
        return Completed(tuple(words), 0, json.dumps(data.get("way" if "get" in words else "there")), "")

    quick = mock.Mock(side_effect=lambda act, *_a, **_k: act())
    sockets = mock.MagicMock()
    with (
        mock.patch.object(capacity.process, "run", run),
        mock.patch("lab.waiting.poll", quick),
        mock.patch.object(capacity.socket, "socket", sockets),
    ):
        found = capacity.answering(IPv4Address("192.168.56.10"))
    assert found is None or isinstance(found, str)


def program_name(text: str, folder: Path) -> None:
    """A program may call itself anything; the rest of the line is the kernel's."""
    (folder / "7").mkdir()
    comm = text.encode("utf-8", "surrogatepass")[:15]
    (folder / "7" / "stat").write_bytes(b"7 (" + comm + b") S " + b" ".join(b"%d" % n for n in range(4, 53)))
    (folder / "7" / "comm").write_bytes(comm)
    with mock.patch.object(namespaces, "PROC", folder):
        assert namespaces.started(7) == 22
        assert isinstance(namespaces.command(7), str)


def network_conf(text: str, _folder: Path) -> None:
    assert parse_backend(text, lambda _program: False)


def apt(text: str, _folder: Path) -> None:
    assert choose_sources("trixie", text)


def cloud_cfg(text: str, _folder: Path) -> None:
    assert all(url.startswith("http") and not url.split()[1:] for url in public_servers(text))


def go(text: str, _folder: Path) -> None:
    assert checksum_database(text).startswith(("sum.golang.org", "sum.golang.google.cn"))


def domain(text: str, _folder: Path) -> None:
    definitions.cdroms(text)
    definitions.mac_addresses(text)
    definitions.disk(text)
    definitions.live_chain(text)
    definitions.hardware(text)
    definitions.cpu(text)
    owner_in_description(definitions.description(text))
    owner_in_metadata(text)
    changed = definitions.with_disk(text, "/other.img")
    found = definitions.disk(changed)
    assert found is None or found.path == "/other.img"


def network(text: str, _folder: Path) -> None:
    for host in definitions.dhcp_hosts(text):
        ElementTree.fromstring(host.xml)  # noqa: S314


def pool(text: str, _folder: Path) -> None:
    definitions.pool_path(text)
    definitions.pool_type(text)
    definitions.backing_path(text)
    definitions.machine_type(text)


# libvirt's own words, over its own socket: what is no XML at all is an error of its own.
XML = (LabError, ElementTree.ParseError, ValueError)
TARGETS = (
    Target("console", ("lab.cluster.wait.console:Console.read",), _of(CONSOLE, "cloud-init " * 2000), texts, console),
    Target(
        "a node's words",
        ("lab.cluster.observe.node_report:parse", "lab.cluster.observe.validity:parsed"),
        _with_certificate(NODE),
        texts,
        node,
    ),
    Target(
        "certificates on a node",
        ("lab.cluster.observe.validity:ask",),
        _with_certificate(CERTIFICATES),
        texts,
        certificates,
    ),
    Target("date over ssh", ("lab.machines.ssh_clock:set_clock",), _of("1795229810\n"), texts, clock),
    Target(
        "guest agent",
        ("lab.machines.libvirt.guest_agent:_told", "lab.machines.libvirt.guest_agent:_text"),
        _of(AGENT),
        json_texts,
        whole_json(agent),
    ),
    Target(
        "the clock of a machine",
        ("lab.machines.libvirt.slow_clocks:moment",),
        _of(MACHINE_CLOCK),
        json_texts,
        machine_clock,
    ),
    Target(
        "QEMU's version", ("lab.machines.libvirt.platform:version_told",), _of(QEMU_VERSION), json_texts, qemu_version
    ),
    Target("VBoxManage list vms", ("lab.machines.virtualbox.output:parse_machines",), _of(MACHINES), texts, machines),
    Target(
        "VBoxManage list systemproperties",
        ("lab.machines.virtualbox.output:parse_machine_folder",),
        _of(PROPERTIES),
        texts,
        machine_folder,
    ),
    Target(
        "VBoxManage list hostonlyifs",
        ("lab.machines.virtualbox.output:parse_interfaces",),
        _of(INTERFACES),
        texts,
        interfaces,
    ),
    Target(
        "VBoxManage showvminfo",
        ("lab.machines.virtualbox.output:parse_info", "lab.machines.virtualbox.output:parse_disks"),
        _of(INFO),
        texts,
        info,
    ),
    Target(
        "VBoxManage --version",
        ("lab.machines.virtualbox.host:parse_version",),
        _of("7.0.20_Debianr163906\n"),
        texts,
        version,
    ),
    Target(
        "VBoxManage showmediuminfo",
        ("lab.machines.virtualbox.output:parse_medium",),
        _of(MEDIUM),
        texts,
        medium,
    ),
    Target("VBoxManage snapshot list", ("lab.machines.virtualbox.output:parse_names",), _of(SNAPSHOTS), texts, names),
    Target(
        "VirtualBox settings",
        ("lab.machines.virtualbox.output:parse_shots",),
        _of(SETTINGS),
        texts,
        shots,
        refuses=(LabError, ValueError),  # documented; its caller words it
    ),
    Target(
        "vagrant", ("lab.machines.vagrant.command:Vagrant._read",), _of(VAGRANT, "Vagrant 2.3.4\n"), texts, vagrant_says
    ),
    Target("vagrant up failed", ("lab.machines.vagrant.failures:explain",), _of(UP), texts, vagrant_failed),
    Target(
        "ip route",
        ("lab.host.capacity:parse_routes", "lab.host.capacity:parse_gateways"),
        _of(ROUTES),
        json_texts,
        routes,
    ),
    Target(
        "libvirt's network.conf",
        ("lab.host.firewalls:parse_backend",),
        _of(NETWORK_CONF, 'firewall_backend = "nftables"\n'),
        texts,
        network_conf,
    ),
    Target("resolv.conf", ("lab.host.capacity:parse_resolvers",), _of(RESOLVERS), texts, resolvers),
    Target("ip neigh", ("lab.host.capacity:answering",), _of(NEIGHBOURS), json_texts, whole_json(neighbours)),
    Target("name of a process", ("lab.host.namespaces:started",), _of("libvirtd", "a (b) c"), texts, program_name),
    Target("apt indextargets", ("lab.boxes.debian:choose_sources",), _of(TARGETS_OF_APT), texts, apt),
    Target("cloud.cfg", ("lab.boxes.debian:public_servers",), _of(CLOUD_CFG), texts, cloud_cfg),
    Target("go env GOSUMDB", ("lab.boxes.gomodules:checksum_database",), _of("sum.golang.org https://s\n"), texts, go),
    Target("domain XML", ("lab.machines.libvirt.definitions:_parse",), _of(DOMAIN), texts, domain, refuses=XML),
    Target("network XML", ("lab.machines.libvirt.definitions:dhcp_hosts",), _of(NETWORK), texts, network, refuses=XML),
    Target("pool XML", ("lab.machines.libvirt.definitions:pool_path",), _of(POOL), texts, pool, refuses=XML),
)
