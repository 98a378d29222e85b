"""Machines that crash or go away during a wait, by the supervisor's policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk

from lab.cluster.events import Event, Journal
from lab.cluster.wait import supervisor
from lab.cluster.wait.console import Consoles
from lab.cluster.wait.supervisor import Supervisor
from lab.errors import HostError, MachineError
from lab.machines.protocol import NodeState
from lab.machines.restarts import RESTARTS
from lab.store import Home


class Machines:
    """Machines in the states that the test says; those that are started crash again, unless they `heal`."""

    heal = True

    def __init__(self) -> None:
        self.now = {"cp1": NodeState.RUNNING, "w1": NodeState.RUNNING}
        self.started: list[str] = []
        self.powered_off: list[str] = []
        self.error: HostError | None = None

    def states(self) -> dict[str, NodeState]:
        if self.error is not None:
            raise self.error
        return dict(self.now)

    def power_off(self, names: list[str]) -> None:
        self.powered_off += names

    def start(self, names: list[str]) -> None:
        self.started += names
        if self.heal:
            self.now |= dict.fromkeys(names, NodeState.RUNNING)


class Watched:
    """A supervisor, its machines, the console file of w1, and the events."""

    def __init__(self, root: Path, *nodes: str) -> None:
        folder, plan = lab_on_disk(Home(root), control_planes=1, workers=1, bootstrap="none")
        self.folder = folder
        self.machines = Machines()
        self.events: list[Event] = []
        journal = Journal(folder.events, self.events.append)
        self.consoles = Consoles(journal)
        self.console = root / "w1.log"
        self.other = root / "cp1.log"
        self.consoles.follow({"w1": self.console, "cp1": self.other})
        self.supervisor = Supervisor(folder, plan, self.machines, journal, nodes or ("cp1", "w1"), self.consoles)  # type: ignore[arg-type]

    def check(self, *, powered: bool = True) -> None:
        self.supervisor.check(powered=powered)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STATE_POLL_SECONDS", -1.0)
    monkeypatch.setattr(supervisor, "GONE_GRACE_SECONDS", -1.0)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.mark.parametrize("powered", [False, True])
def test_a_crashed_machine_is_restarted_and_noted(watched: Watched, powered: bool) -> None:
    watched.machines.now["w1"] = NodeState.CRASHED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "GONE_GRACE_SECONDS", 1000.0)
        watched.check(powered=powered)
    assert watched.machines.started == ["w1"]
    assert [(e.node, e.phase, e.state) for e in watched.events] == [("w1", "boot", "retry")]


def test_it_is_restarted_only_so_often(watched: Watched) -> None:
    watched.machines.heal = False
    watched.machines.now["w1"] = NodeState.CRASHED
    for _ in range(RESTARTS):
        watched.check(powered=False)
    with pytest.raises(MachineError, match="the virtual machine of w1 crashed") as caught:
        watched.check(powered=False)
    assert watched.machines.started == ["w1"] * RESTARTS
    assert "klab doctor demo" in caught.value.hint, "the lab was ready once"


def test_a_node_in_its_first_boot_cannot_continue(watched: Watched) -> None:
    watched.folder.update_record(phase="creating")
    watched.console.write_text("klab: cloud-init begin\nthe last line\n")
    watched.consoles.read()
    watched.machines.now["w1"] = NodeState.CRASHED
    with pytest.raises(MachineError, match="w1 crashed during its first boot") as caught:
        watched.check()
    assert watched.machines.started == []
    assert "the last line" in caught.value.details
    assert "klab destroy -y demo" in caught.value.hint


def test_a_machine_that_is_off_is_lost_once_it_was_started(watched: Watched) -> None:
    watched.machines.now["w1"] = NodeState.STOPPED
    watched.check(powered=False)
    with pytest.raises(MachineError, match="the machine w1 is stopped although it was started"):
        watched.check()


def test_a_machine_has_time_to_come_back(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GONE_GRACE_SECONDS", 1000.0)
    watched.machines.now["w1"] = NodeState.STOPPED
    watched.check()
    watched.machines.now["w1"] = NodeState.RUNNING
    watched.check()
    monkeypatch.setattr(supervisor, "GONE_GRACE_SECONDS", -1.0)
    watched.check()


def test_machines_that_are_not_waited_for_may_be_off(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "cp1")
    watched.machines.now["w1"] = NodeState.STOPPED
    watched.check()


def test_a_provider_that_does_not_answer_is_an_error_once_all_are_started(watched: Watched) -> None:
    watched.machines.error = HostError("libvirtd does not answer")
    watched.check(powered=False)
    with pytest.raises(HostError):
        watched.check()


def test_machines_are_not_looked_at_all_the_time(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.check()
    monkeypatch.setattr(supervisor, "STATE_POLL_SECONDS", 1000.0)
    watched.machines.now["w1"] = NodeState.CRASHED
    watched.check()
    assert watched.machines.started == []


class Clock:
    """The supervisor's clock, which a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def booting(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> tuple[Watched, Clock]:
    """Two machines that boot from their seeds, and have been seen once."""
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    watched.folder.seeds.mkdir(parents=True)
    for name in ("cp1", "w1"):
        (watched.folder.seeds / f"{name}.iso").touch()
        watched.machines.now[name] = NodeState.RUNNING
    for file in (watched.console, watched.other):
        file.touch()
    watched.check()
    return watched, clock


def says(watched: Watched, file: Path) -> None:
    file.write_text("[    1.0] systemd[1]: hello\n")
    watched.consoles.read()
    watched.check()


@pytest.mark.parametrize(("spoke", "limit"), [(60, 180), (400, 1000)])
def test_a_machine_that_hangs_in_its_boot_is_restarted(
    booting: tuple[Watched, Clock], spoke: float, limit: float
) -> None:
    watched, clock = booting
    clock.now += spoke
    says(watched, watched.other)
    clock.now += limit - spoke
    watched.check()
    assert watched.machines.powered_off == []
    clock.now += 1
    watched.check()
    assert (watched.machines.powered_off, watched.machines.started) == (["w1"], ["w1"])
    (event,) = watched.events
    assert (event.node, event.phase, event.state) == ("w1", "boot", "retry")
    assert event.text == f"its console has been silent for {limit + 1:.0f} s"
    clock.now += 1
    watched.check()
    assert watched.machines.started == ["w1"], "it has as long again"
    says(watched, watched.console)
    clock.now += 10000
    watched.check()
    assert watched.machines.started == ["w1"]


def test_a_machine_that_hangs_again_and_again_is_restarted_only_so_often(booting: tuple[Watched, Clock]) -> None:
    watched, clock = booting
    says(watched, watched.other)
    for _ in range(RESTARTS + 3):
        clock.now += 1000
        watched.check()
    assert watched.machines.started == ["w1"] * RESTARTS


def test_machines_that_all_are_silent_have_longer(booting: tuple[Watched, Clock]) -> None:
    watched, clock = booting
    limit = supervisor.SILENT_ALONE_SECONDS[0 if watched.folder.record().accelerated else 1]
    clock.now += limit
    watched.check()
    assert watched.machines.started == []
    clock.now += 1
    watched.check()
    assert sorted(watched.machines.started) == ["cp1", "w1"]


@pytest.mark.parametrize("why", ["no seed", "another user's console", "not its first line"])
def test_what_need_not_speak_is_left_alone(booting: tuple[Watched, Clock], why: str) -> None:
    watched, clock = booting
    says(watched, watched.other)
    if why == "no seed":  # it has booted before
        (watched.folder.seeds / "w1.iso").unlink()
    elif why == "another user's console":
        console = watched.consoles.of("w1")
        assert console is not None
        console.unreadable = "Permission denied"
    else:
        says(watched, watched.console)
    clock.now += 100000
    watched.check()
    assert watched.machines.started == []
