from __future__ import annotations

import ast
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.vboxmanage import VirtualBox

import lab
from lab import process
from lab.errors import HostError, LabError
from lab.host import network, private_libvirt
from lab.host.capacity import DiskRoom, HostFacts, Route, check_fits
from lab.host.profile import REAL_TIME
from lab.machines import providers
from lab.machines.libvirt import connection
from lab.machines.virtualbox import host
from lab.plan.decide import decide
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario
from lab.store import Home, Record


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    monkeypatch.setattr(network, "SOCKETS", ("absent", "sock"))
    monkeypatch.delenv("KLAB_LIBVIRT", raising=False)
    return Path("sock")


def test_no_socket_means_no_system_libvirtd(sockets: Path) -> None:
    assert not network.system_answers()


def test_a_socket_left_by_a_dead_daemon_does_not_answer(sockets: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(sockets))
    assert not network.system_answers()


def test_a_listening_socket_is_the_systems(sockets: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sockets))
        server.listen()
        assert network.system_answers()
        assert network.enter_host_network(Home(tmp_path)) == network.SYSTEM


def test_a_socket_that_refuses_this_user_says_how_to_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def __init__(self, *_words: object) -> None: ...
        def __enter__(self) -> Closed:
            return self

        def __exit__(self, *_words: object) -> None: ...
        def settimeout(self, _seconds: float) -> None: ...
        def connect(self, _path: str) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(network.socket, "socket", Closed)
    with pytest.raises(HostError) as caught:
        network.system_answers()
    assert "usermod -aG libvirt" in caught.value.hint


def test_without_root_and_without_a_libvirtd_the_ways_out_are_named(
    sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_libvirt.os, "geteuid", lambda: 1000)
    with pytest.raises(HostError) as caught:
        network.enter_host_network(Home(tmp_path))
    for way in ("systemctl enable --now libvirtd", "as root", "virtualbox"):
        assert way in caught.value.hint


def test_asking_for_the_systems_libvirtd_never_starts_another(
    sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLAB_LIBVIRT", "system")
    with pytest.raises(HostError, match="no system libvirtd"):
        network.enter_host_network(Home(tmp_path))


def test_libvirt_python_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "libvirt", None)
    with pytest.raises(HostError) as caught:
        connection.library()
    assert "klab[libvirt]" in caught.value.hint


@pytest.mark.parametrize(("installed", "provider"), [("libvirtd", "libvirt"), ("VBoxManage", "virtualbox")])
def test_auto_takes_what_is_installed(installed: str, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "have", lambda program: program == installed)
    assert providers.choose_provider("auto") == provider


def test_auto_without_either_names_the_way_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "have", lambda _program: False)
    with pytest.raises(HostError) as caught:
        providers.choose_provider("auto")
    assert "make install" in caught.value.hint


def test_a_provider_that_klab_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="'kvm' is unknown") as caught:
        providers.provider_named("kvm")
    assert "libvirt, virtualbox" in caught.value.details[0]


def test_a_klab_that_is_installed_has_no_fake_machines() -> None:
    """Whatever a stranger's lab.json says; the tests alone put the fake into the registry."""
    script = "from lab.machines.providers import PROVIDERS; print(*PROVIDERS)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["libvirt", "virtualbox"]


def test_a_lab_of_fake_machines_is_refused(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    home, record = Home(tmp_path), Record("id", "demo", "fake", "box", 0, "ready", 0.0)
    plan = decide(Scenario(version=1, name="demo"), catalog)
    assert providers.open_machines(home, home.lab("demo"), plan, record, None).states()
    monkeypatch.delitem(providers.PROVIDERS, "fake")
    with pytest.raises(LabError, match="'fake' is unknown"):
        providers.open_machines(home, home.lab("demo"), plan, record, None)


def test_virtualbox_is_real_time_without_a_word_from_qemu_or_kvm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    virtualbox, programs = VirtualBox.make(tmp_path / "vbox"), set()

    def run(argv: Sequence[str], **_options: object) -> process.Completed:
        programs.add(argv[0])
        answer = (0, "Vagrant 2.3.4\n", "") if argv[0] == "vagrant" else virtualbox.run(argv[1:])
        return process.Completed(tuple(argv), *answer)

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(host, "kvm_now", lambda: host.Kvm("", None))
    assert providers.provider_named("virtualbox").profile(Home(tmp_path / "home"), 6) == REAL_TIME
    assert programs == {"VBoxManage", "vagrant"}
    assert not (tmp_path / "home").exists()


def test_room_on_virtualbox_is_that_of_its_machine_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As VirtualBox 7.0 prints it, transcribed (src/VBox/Frontends/VBoxManage/VBoxManageList.cpp).
    told = f"API version:                     7_0\nDefault machine folder:          {tmp_path}/VirtualBox VMs\nEnd: 1\n"
    monkeypatch.setattr(process, "run", lambda argv, **_options: process.Completed(tuple(argv), 0, told, ""))
    (tmp_path / "VirtualBox VMs").mkdir()
    room = providers.provider_named("virtualbox").disk_room(Home(tmp_path / "home"), "default")
    assert (room.folder, room.free > 0) == (tmp_path / "VirtualBox VMs", True)


# As VirtualBox 7.2 prints it, transcribed (src/VBox/Frontends/VBoxManage/VBoxManageList.cpp, listNetworkInterfaces).
INTERFACE = """Name:            {name}
GUID:            786f6276-656e-4074-8000-0a0027000000
DHCP:            Disabled
IPAddress:       {address}
NetworkMask:     255.255.255.0
IPV6Address:{space}
IPV6NetworkMaskPrefixLength: 0
HardwareAddress: 0a:00:27:00:00:00
MediumType:      Ethernet
Wireless:        No
Status:          Down
VBoxNetworkName: HostInterfaceNetworking-{name}

"""


def test_the_interface_that_an_earlier_lab_left_to_virtualbox_is_its_own(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vagrant never removes one, and takes it again; another network's stays in the way."""
    plan, provider = decide(Scenario(version=1, name="demo"), catalog), providers.provider_named("virtualbox")
    told = INTERFACE.format(name="vboxnet0", address="192.168.56.1", space=" " * 5)
    told += INTERFACE.format(name="vboxnet1", address="192.168.57.1", space=" " * 5)
    monkeypatch.setattr(process, "run", lambda argv, **_options: process.Completed(tuple(argv), 0, told, ""))
    networks = provider.networks(plan)
    assert networks.interfaces == ("vboxnet0",)
    assert list(networks.ranges.values()) == [plan.networks.cidr], "it makes no management network"
    disks = DiskRoom(tmp_path, 100 << 30, "")
    left = Route(plan.networks.cidr, "vboxnet0")
    facts = HostFacts(memory=16384, cpus=4, disks=disks, routes=(left, Route(plan.networks.management_cidr, "eth1")))
    assert check_fits(plan, facts, networks) == []
    assert len(check_fits(plan, facts, providers.provider_named("libvirt").networks(plan))) == 2


@pytest.mark.parametrize("name", ["libvirt", "virtualbox"])
def test_machines_move_disks_where_their_provider_says_so(name: str, tmp_path: Path, catalog: Catalog) -> None:
    home, record = Home(tmp_path), Record(str(uuid.uuid4()), "demo", name, "box", 0, "ready", 0.0)
    plan, provider = decide(Scenario(version=1, name="demo"), catalog), providers.provider_named(name)
    machines = provider.open(home, home.lab("demo"), plan, record, None)
    assert (machines.disk_transfer() is not None) is provider.features.disk_transfer


def test_where_a_providers_machines_are(sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "enter_host_network", lambda _home: "somewhere")
    assert providers.enter_host("libvirt", Home(tmp_path)) == "somewhere"
    assert providers.enter_host("virtualbox", Home(tmp_path)) == "VirtualBox"


def test_nothing_above_asks_for_a_provider_by_name() -> None:
    """What a provider can do is in its features."""
    root = Path(lab.__file__).parent
    asked = [
        f"{file.relative_to(root)}:{value.lineno}"
        for file in sorted(root.rglob("*.py"))
        if file.relative_to(root).parts[0] != "machines"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Compare | ast.match_case)
        for value in ast.walk(node.pattern if isinstance(node, ast.match_case) else node)
        if isinstance(value, ast.Constant) and value.value in {"libvirt", "virtualbox", "fake"}
    ]
    assert asked == []
