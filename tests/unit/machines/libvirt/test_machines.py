"""Power and nodes that come and go, over libvirt's own test driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import libvirt
import pytest
from support.libvirt_host import OWNER, RECORD, Host, Vagrant, domain_xml, plan_of

from lab.errors import Conflict, HostError, MachineError, NotFound
from lab.machines.libvirt import definitions, pools, provision
from lab.machines.libvirt.connection import start_if_inactive
from lab.machines.libvirt.consoles import FOLDER
from lab.machines.libvirt.domains import Domains, state_of, switch_on
from lab.machines.libvirt.layer_gc import LayerCollector
from lab.machines.libvirt.machines import LibvirtMachines
from lab.machines.libvirt.networks import LabNetworks
from lab.machines.libvirt.pools import LabPool
from lab.machines.libvirt.provision import Provision
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.volumes import LayerStore
from lab.machines.ownership import Owner
from lab.machines.protocol import NodeState
from lab.machines.ssh import Ssh
from lab.plan.names import seed_volume
from lab.scenario.catalog import Catalog
from lab.store import Home
from lab.waiting import Deadline

# --- start ------------------------------------------------------------------------------------------


def test_start_lets_every_machine_run_and_leaves_the_one_that_does(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="running", w1="paused", w2="off")
    before = host.runs()
    host.machines().start(["cp1", "w1", "w2"])
    assert set(host.machines().states().values()) == {NodeState.RUNNING}
    after = host.runs()
    assert [name for name in after if after[name] != before[name]] == ["klab-demo_w2"]


def test_start_is_only_about_the_nodes_it_is_given(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off", w1="off", w2="paused")
    host.machines().start(["w1"])
    assert host.machines().states() == {"cp1": NodeState.STOPPED, "w1": NodeState.RUNNING, "w2": NodeState.PAUSED}


def test_start_brings_back_what_a_restart_of_the_host_switches_off(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off")
    host.machines().start(["cp1"])
    for thing in (*host.connection.listAllNetworks(), *host.connection.listAllStoragePools()):
        thing.destroy()
    host.domain("cp1").destroy()
    host.machines().start(["cp1"])
    assert [network.isActive() for network in host.connection.listAllNetworks()] == [1, 1]
    assert [pool.isActive() for pool in host.connection.listAllStoragePools()] == [1, 1]
    assert host.machines().states()["cp1"] == NodeState.RUNNING


def test_start_makes_sure_of_the_slower_clock(make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(cp1="off")

    def missing(_home: Home) -> Path:
        raise HostError("it is not installed")

    monkeypatch.setattr(provision, "ensure_library", missing)
    with pytest.raises(HostError, match="it is not installed"):
        host.machines(dilation=0.5).start(["cp1"])
    assert host.machines().states()["cp1"] == NodeState.STOPPED
    host.machines(dilation=1.0).start(["cp1"])
    assert host.machines().states()["cp1"] == NodeState.RUNNING


def test_a_crashed_machine_can_be_started(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="crashed")
    assert host.machines().states()["cp1"] == NodeState.CRASHED
    host.machines().start(["cp1"])
    assert host.machines().states()["cp1"] == NodeState.RUNNING


def test_a_guest_that_put_itself_to_sleep_is_woken(
    make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host(cp1="running")
    woken: list[str] = []
    asleep = lambda _domain: [libvirt.VIR_DOMAIN_PMSUSPENDED, 0]  # noqa: E731
    monkeypatch.setattr(libvirt.virDomain, "state", asleep)
    monkeypatch.setattr(libvirt.virDomain, "pMWakeup", lambda domain: woken.append(domain.name()))
    host.machines().start(["cp1"])
    assert woken == ["klab-demo_cp1"]


def test_start_of_a_machine_that_does_not_exist_starts_none(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off")
    with pytest.raises(MachineError, match="no machine to start for w1, w2") as caught:
        host.machines().start(["cp1", "w1", "w2"])
    assert "klab node replace" in caught.value.hint
    assert host.machines().states()["cp1"] == NodeState.STOPPED


def test_a_machine_that_cannot_be_started_is_named(
    make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_domain: libvirt.virDomain) -> None:
        raise libvirt.libvirtError("cannot set up guest memory")

    host = make_host(cp1="off")
    monkeypatch.setattr(libvirt.virDomain, "create", fail)
    with pytest.raises(MachineError, match="cp1 cannot be started") as caught:
        host.machines().start(["cp1"])
    assert "guest memory" in caught.value.details[0]


def test_why_a_machine_is_paused(make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host(cp1="paused", w1="running")
    host.machines().start(["w1"])
    assert host.machines().halted() == {}, "somebody has paused cp1"
    broken = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]
    states = libvirt.virDomain.state
    monkeypatch.setattr(
        libvirt.virDomain, "state", lambda self: broken if self.name() == "klab-demo_cp1" else states(self)
    )
    for code, said in ((libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE, "is full"), (1, "has errors")):
        monkeypatch.setattr(libvirt.virDomain, "diskErrors", lambda _domain, code=code: {"vda": code})
        (node, why), *_ = host.machines().halted().items()
        assert node == "cp1"
        assert f"this machine's disk {said}" in why
        assert why.endswith(f"free in {pools.DEFAULT_FOLDER}/klab-{RECORD.id}")


# --- stop and power off -----------------------------------------------------------------------------


def test_stop_shuts_down_whom_it_is_given_and_wakes_the_paused_for_it(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="running", w1="paused", w2="running")
    assert host.machines().stop(["cp1", "w1"], Deadline.after(60)) == []
    assert host.presses == [("cp1", NodeState.RUNNING), ("w1", NodeState.RUNNING)]
    assert host.machines().states() == {"cp1": NodeState.STOPPED, "w1": NodeState.STOPPED, "w2": NodeState.RUNNING}


def test_a_press_that_a_booting_guest_does_not_hear_is_repeated(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="running")
    host.deaf = 2
    assert host.machines().stop(["cp1"], Deadline.after(60)) == []
    assert len(host.presses) == 3


def test_stop_names_those_that_still_run_when_time_is_up(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off", w1="running")
    host.deaf = 1_000_000
    assert host.machines().stop(["cp1", "w1", "w2"], Deadline.after(0)) == ["w1"]
    assert host.machines().states()["w1"] == NodeState.RUNNING


def test_a_guest_that_goes_off_before_its_button_is_pressed_is_no_failure(
    make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(domain: libvirt.virDomain, _flags: int) -> None:
        domain.destroy()
        domain.destroy()  # libvirt's own "domain is not running"

    host = make_host(cp1="running")
    monkeypatch.setattr(libvirt.virDomain, "shutdownFlags", too_late)
    assert host.machines().stop(["cp1"], Deadline.after(60)) == []


def test_power_off_whatever_the_machine_does_and_again(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="running", w1="paused")
    host.machines().power_off(["cp1", "w1", "w2"])
    host.machines().power_off(["cp1", "w1", "w2"])
    assert host.machines().states() == {"cp1": NodeState.STOPPED, "w1": NodeState.STOPPED, "w2": NodeState.ABSENT}
    assert host.presses == []


class Late:
    """A machine, network or pool that a killed klab had libvirtd start, seen just before it was."""

    def __init__(self, thing: libvirt.virDomain | libvirt.virNetwork) -> None:
        self.thing = thing

    def create(self) -> None:
        if not self.thing.isActive():
            self.thing.create()
        self.thing.create()

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self.thing.isActive())

    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_SHUTOFF, 0]


def test_a_start_that_a_killed_klab_had_asked_for_is_as_good_as_done(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off", w1="running")
    for node in ("cp1", "w1"):
        domain = host.domain(node)
        switch_on(node, cast("libvirt.virDomain", Late(domain)))
        assert state_of(domain) == NodeState.RUNNING
    network = host.connection.networkDefineXML(definitions.lab_network(host.plan.networks, OWNER))
    network.create()
    with pytest.raises(libvirt.libvirtError, match="already"):
        network.create()
    start_if_inactive(cast("libvirt.virNetwork", Late(network)))


def test_a_start_that_fails_is_told_of(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="running")
    domain = host.domain("cp1")
    domain.destroy()
    domain.undefine()
    with pytest.raises(MachineError, match="cp1 cannot be started"):
        switch_on("cp1", cast("libvirt.virDomain", Late(domain)))


def test_power_off_ends_a_crashed_machine_and_no_other(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="crashed", w1="running")
    host.machines().power_off(["cp1"])
    assert host.machines().states()["cp1"] == NodeState.STOPPED
    assert host.machines().states()["w1"] == NodeState.RUNNING


@pytest.mark.parametrize(
    "act",
    [
        lambda machines: machines.start(["w9"]),
        lambda machines: machines.stop(["w9"], Deadline.after(60)),
        lambda machines: machines.power_off(["w9"]),
        lambda machines: machines.remove("w9", print),
        lambda machines: machines.up(Deadline.after(60), print, nodes=["w9"]),
    ],
)
def test_a_node_that_the_lab_does_not_have(
    make_host: Callable[..., Host], act: Callable[[LibvirtMachines], object]
) -> None:
    with pytest.raises(NotFound) as caught:
        act(make_host(cp1="running").machines())
    assert "w2" in caught.value.hint


# --- nodes that come --------------------------------------------------------------------------------


def test_a_running_network_learns_a_new_node_and_keeps_what_it_gave_out(
    make_host: Callable[..., Host], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host(cp1="running")
    machines = host.machines()
    machines.start(["cp1"])
    before = host.hosts()
    monkeypatch.setattr(libvirt.virNetwork, "destroy", lambda _network: pytest.fail("the network went down"))
    new = plan_of(3, catalog).nodes[-1]
    # In front: its place in the plan is one that another node's address was counted from.
    host.machines(replace(host.plan, nodes=(new, *host.plan.nodes))).start(["cp1"])
    after = host.hosts()
    assert [entry for entry in after if entry in before] == before
    (added,) = (entry for entry in after if entry not in before)
    assert (added.mac, added.name) == (new.management_mac, "w3")
    assert added.address not in {entry.address for entry in before}


@pytest.mark.parametrize(
    ("active", "flags"),
    [
        (True, libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE | libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG),
        (False, libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG),
    ],
)
def test_a_network_learns_for_now_and_for_its_next_start(
    make_host: Callable[..., Host], catalog: Catalog, monkeypatch: pytest.MonkeyPatch, active: bool, flags: int
) -> None:
    host = make_host(cp1="running")
    host.machines(plan_of(1, catalog)).start(["cp1"])
    if not active:
        host.connection.networkLookupByName(host.plan.networks.management_name).destroy()
    given: list[int] = []
    update = libvirt.virNetwork.update

    def noted(network: libvirt.virNetwork, *words: object) -> None:
        given.append(words[-1])  # type: ignore[arg-type]
        update(network, *words)

    monkeypatch.setattr(libvirt.virNetwork, "update", noted)
    LabNetworks(host.connection, OWNER).ensure_hosts(host.plan.networks, host.plan.nodes)
    assert given == [flags]
    assert [entry.name for entry in host.hosts()] == ["cp1", "w1", "w2"]


def test_a_network_forgets_nodes_that_left_the_plan(make_host: Callable[..., Host], catalog: Catalog) -> None:
    host = make_host(cp1="running")
    host.machines(plan_of(3, catalog)).start(["cp1"])
    host.machines().start(["cp1"])
    assert [entry.name for entry in host.hosts()] == ["cp1", "w1", "w2"]


@pytest.fixture
def up_host(make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Vagrant, list[str]]:
    """A lab whose w2 is to be made. Returns also whom klab has waited for, or copied seeds for."""
    host = make_host(cp1="running", w1="paused")
    told, about = Vagrant(host), list[str]()
    monkeypatch.setattr(LibvirtMachines, "_commands", lambda _machines: told)
    monkeypatch.setattr(Provision, "prepare_box", lambda *_: None)
    monkeypatch.setattr(provision.transfer, "upload", lambda _pool, name, _file: about.append(name))
    monkeypatch.setattr(Ssh, "answers", lambda _ssh, node, _timeout: about.append(node) or True)
    host.folder.seeds.mkdir(parents=True)
    (host.folder.seeds / "w2.iso").touch()
    known = host.folder.ssh_key.parent / "known_hosts"
    known.parent.mkdir()
    known.write_text("demo-cp1 ssh-ed25519 AAAA\ndemo-w2 ssh-ed25519 BBBB\n")
    return host, told, about


def test_up_of_one_node_leaves_the_others_as_they_are(up_host: tuple[Host, Vagrant, list[str]]) -> None:
    host, told, about = up_host
    before = host.runs()
    books = host.folder.path / ".vagrant" / "machines" / "w1" / "libvirt" / "id"
    books.parent.mkdir(parents=True)
    books.write_text("to be mended when it is w1's turn")
    host.machines().up(Deadline.after(60), print, nodes=["w2"])
    assert told.up_names == [["w2"]]
    assert about == ["w2-seed.iso", "w2"]
    assert host.machines().states() == {"cp1": NodeState.RUNNING, "w1": NodeState.PAUSED, "w2": NodeState.RUNNING}
    assert before.items() <= host.runs().items()
    assert books.read_text().startswith("to be mended")
    text = (host.folder.path / "Vagrantfile").read_text()
    assert [f"config.vm.define '{node}'" in text for node in ("cp1", "w1", "w2")] == [True] * 3


def test_a_machine_that_is_made_anew_may_have_a_new_host_key(up_host: tuple[Host, Vagrant, list[str]]) -> None:
    host, _, _ = up_host
    host.machines().up(Deadline.after(60), print, nodes=["w2"])
    argv = Ssh(host.folder, host.plan).argv("cp1")
    assert "HostKeyAlias=demo-cp1" in argv, "the name under which ssh keeps the key"
    assert (host.folder.ssh_key.parent / "known_hosts").read_text() == "demo-cp1 ssh-ed25519 AAAA\n"


def test_up_of_no_node_only_writes_the_project_anew(up_host: tuple[Host, Vagrant, list[str]]) -> None:
    host, told, about = up_host
    host.machines().up(Deadline.after(60), print, nodes=[])
    assert (told.up_names, about) == ([], [])
    assert (host.folder.path / "Vagrantfile").is_file()
    assert host.machines().states()["w1"] == NodeState.PAUSED


# --- nodes that go ----------------------------------------------------------------------------------


@pytest.fixture
def full_host(make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Vagrant]:
    """A lab with everything that a node can have."""
    host = make_host(cp1="running", w1="running", w2="off")
    host.machines().start(["cp1", "w1"])
    told = Vagrant(host)
    monkeypatch.setattr(LibvirtMachines, "_commands", lambda _machines: told)
    host.folder.seeds.mkdir(parents=True)
    for node in ("cp1", "w1", "w2"):
        host.add_volumes(f"klab-demo_{node}.img", seed_volume(node))
        (host.folder.seeds / f"{node}.iso").touch()
        (host.folder.path / ".vagrant" / "machines" / node / "libvirt").mkdir(parents=True)
        host.consoles().renew(node)
    (host.folder.path / "Vagrantfile").touch()
    return host, told


def test_remove_takes_one_machine_with_all_that_is_its_and_nothing_else(full_host: tuple[Host, Vagrant]) -> None:
    host, told = full_host
    before, networks = host.runs(), [network.isActive() for network in host.connection.listAllNetworks()]
    files = {file for file in host.folder.path.rglob("*") if file.is_file() or file.name == "libvirt"}
    lines: list[str] = []
    host.machines().remove("w1", lines.append)
    assert told.destroyed == [["w1"]]
    assert any("klab removes the rest" in line for line in lines)
    del before["klab-demo_w1"]
    assert host.runs() == before
    left = {f"klab-demo_{n}.img" for n in ("cp1", "w2")} | {seed_volume(n) for n in ("cp1", "w2")}
    assert host.volumes() == left | {FOLDER}
    assert sorted(file.name for file in host.consoles().folder.iterdir()) == ["console-cp1.log", "console-w2.log"]
    assert [entry.name for entry in host.hosts()] == ["cp1", "w2"]
    assert [network.isActive() for network in host.connection.listAllNetworks()] == networks
    text = (host.folder.path / "Vagrantfile").read_text()
    assert [f"config.vm.define '{node}'" in text for node in ("cp1", "w1", "w2")] == [True, False, True]
    gone = {file.relative_to(host.folder.path).as_posix() for file in files if not file.exists()}
    assert gone == {"seeds/w1.iso", ".vagrant/machines/w1/libvirt", "logs/console-w1.log"}


def test_remove_again_finds_nothing_to_do(full_host: tuple[Host, Vagrant]) -> None:
    host, told = full_host
    host.machines().remove("w1", print)
    before = host.runs(), host.volumes(), host.hosts()
    host.machines().remove("w1", print)
    assert (host.runs(), host.volumes(), host.hosts()) == before
    assert told.destroyed == [["w1"]], "Vagrant knows nothing of it any more"


def test_what_remove_leaves_is_named(full_host: tuple[Host, Vagrant], monkeypatch: pytest.MonkeyPatch) -> None:
    host, _ = full_host
    monkeypatch.setattr(LabPool, "remove_volume", lambda *_: None)
    monkeypatch.setattr(LayerCollector, "clear", lambda *_: None)
    monkeypatch.setattr(Domains, "remove", lambda *_: None)
    monkeypatch.setattr(LabNetworks, "ensure_hosts", lambda *_: None)
    with pytest.raises(MachineError, match="some parts of w1 could not be removed") as caught:
        host.machines().remove("w1", print)
    node = host.plan.node("w1")
    assert node is not None
    assert caught.value.details == (
        "machine klab-demo_w1",
        "volume klab-demo_w1.img",
        "volume w1-seed.iso",
        f"DHCP entry of {node.management_mac}",
    )


def test_a_stranger_under_the_nodes_uuid_is_not_removed(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="running")
    stranger = host.plan.node("w1")
    assert stranger is not None
    xml = domain_xml(host.plan, stranger, 5).replace(RECORD.id, "00000000-70ce-456d-a4d8-2e6b37ed0cff")
    host.connection.defineXML(xml).create()
    host.machines().remove("w1", print)
    host.machines().power_off(["w1"])
    assert host.domain("w1").isActive()


# --- disks from elsewhere -----------------------------------------------------------------------------


def test_what_stands_in_the_way_of_disks_from_elsewhere_is_told_before(make_host: Callable[..., Host]) -> None:
    host = make_host()
    host.machines().check_new()
    with pytest.raises(HostError, match="no storage pool called 'fast'"):
        host.machines(replace(host.plan, pool="fast")).check_new()
    stranger = host.plan.node("w1")
    assert stranger is not None
    xml = domain_xml(host.plan, stranger, 5).replace(RECORD.id, "00000000-70ce-456d-a4d8-2e6b37ed0cff")
    host.connection.defineXML(xml)
    with pytest.raises(Conflict, match="needed for w1"):
        host.machines().check_new()
    assert host.connection.listAllNetworks() == []
    assert host.connection.listAllStoragePools() == []


def test_a_definition_that_libvirt_refuses_is_no_bug_of_klabs() -> None:
    class Refusing:
        def defineXML(self, _xml: str) -> None:  # noqa: N802 - libvirt's name
            raise libvirt.libvirtError("internal error")

    store = LayerStore(Resources(Refusing(), Owner("0" * 8, 0, 0.0)))
    with pytest.raises(MachineError, match="a machine cannot be defined") as caught:
        store.define("<domain/>")
    assert caught.value.details == ("internal error",)
