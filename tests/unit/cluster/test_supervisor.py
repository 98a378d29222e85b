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
        self.error: HostError | None = None

    def states(self) -> dict[str, NodeState]:
        if self.error is not None:
            raise self.error
        return dict(self.now)

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
        self.consoles.follow({"w1": self.console})
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
