"""The fake: what it is told when it is made is what its machines do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.errors import Conflict, MachineError
from lab.machines.fake.captures import FakeCaptures
from lab.machines.fake.machines import FakeMachines
from lab.machines.fake.provider import FakeProvider
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import Home, Record
from lab.waiting import Deadline

Open = Callable[[FakeProvider], FakeMachines]


@pytest.fixture
def opened(tmp_path: Path, catalog: Catalog) -> Open:
    """A lab's running machines, by any provider."""
    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)
    home, record = Home(tmp_path), Record("id", "demo", "fake", "box", 0, "ready", 0.0)
    folder = home.lab("demo")
    folder.seeds.mkdir(parents=True)
    for node in plan.nodes:
        (folder.seeds / f"{node.name}.iso").touch()
    FakeProvider().open(home, folder, plan, record, None).up(Deadline.after(60), print)
    return lambda provider: provider.open(home, folder, plan, record, None)


def test_answers_and_guests_that_do_not_hear_the_power_button(opened: Open) -> None:
    machines = opened(FakeProvider(answers={"uname -r": (3, "6.12\n")}, stubborn=frozenset({"w1"})))
    done = machines.ssh("cp1", ["uname", "-r"], 60, check=False)
    assert (done.code, done.stdout) == (3, "6.12\n")
    assert machines.stop(["cp1", "w1"], Deadline.after(60)) == ["w1"]
    assert opened(FakeProvider()).ssh("w1", ["uname", "-r"], 60).stdout == "", "no provider tells another"
    assert opened(FakeProvider()).stop(["w1"], Deadline.after(60)) == []


def test_room_and_version_of_captures(opened: Open) -> None:
    captures = opened(FakeProvider(free=7, version="2")).captures()
    assert captures.room(["cp1"]).free == 7
    assert captures.platform()["w1"] == {"fake": "2"}


def test_a_stranger_stands_where_machines_belong(opened: Open) -> None:
    opened(FakeProvider()).check_new()
    with pytest.raises(Conflict):
        opened(FakeProvider(foreign=True)).check_new()


def test_a_method_that_does_something_else(opened: Open) -> None:
    """Of the machines, their captures or their disk transfer; it may call the one that it stands for."""
    keys: list[str] = []

    def finalize(captures: FakeCaptures, key: str) -> None:
        keys.append(key)
        FakeCaptures.finalize(captures, key)

    def fail(*_: Any) -> Any:
        raise MachineError("it does not")

    machines = opened(FakeProvider(instead={"start": fail, "finalize": finalize, "size_estimate": fail}))
    with pytest.raises(MachineError, match="it does not"):
        machines.start(["cp1"])
    machines.power_off(["cp1"])
    machines.captures().capture("one", ["cp1"], print)
    machines.captures().finalize("one")
    assert keys == ["one"]
    with pytest.raises(MachineError, match="it does not"):
        machines.disk_transfer().size_estimate("cp1")
    opened(FakeProvider()).start(["cp1"])
    assert machines.states()["cp1"] == NodeState.RUNNING


def test_a_clock_is_never_set_back(opened: Open) -> None:
    machines = opened(FakeProvider())
    assert machines.set_clock("cp1", lambda: 50.0, 60) == 50.0
    assert machines.set_clock("cp1", lambda: 40.0, 60) == 0.0
    assert machines.set_clock("cp1", lambda: 60.0, 60) == 10.0
