"""Labs: found by name, opened where their machines are, listed though damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk

from lab.app import labs as module
from lab.app.labs import Labs, Summary, enter
from lab.cluster.lab import Lab
from lab.errors import Conflict, LabError, NotFound
from lab.machines import providers
from lab.machines.protocol import NodeState
from lab.store import Home


@pytest.fixture
def demo(home: Path) -> Lab:
    lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none")
    return Labs(Home(home)).find("demo")


def test_a_lab_is_found_with_all_that_leads_to_its_machines(demo: Lab, home: Path) -> None:
    assert (demo.name, demo.home, demo.record.provider) == ("demo", Home(home), "fake")
    assert demo.machines().states() == {"cp1": NodeState.RUNNING, "w1": NodeState.RUNNING}
    assert Labs().find() == demo


def test_which_lab_is_meant(demo: Lab) -> None:
    with pytest.raises(NotFound, match="no lab called 'other'"):
        Labs().find("other")
    lab_on_disk(demo.home, control_planes=1, workers=0, bootstrap="none", name="two")
    assert Labs().names == ["demo", "two"]
    with pytest.raises(Conflict, match="more than one lab"):
        Labs().find()


def test_a_damaged_plan_is_decided_again_from_the_scenario(demo: Lab) -> None:
    (demo.folder.path / "plan.json").write_text("{")
    with pytest.raises(LabError, match="neither the plan nor the scenario"):
        Labs().find()
    topology = "topology: {control_planes: 1, workers: 1}"
    (demo.folder.path / "scenario.yaml").write_text(f"version: 1\nname: demo\nbootstrap: none\n{topology}\n")
    assert Labs().find().plan == demo.plan


def test_a_damaged_lab_is_listed_by_its_name(demo: Lab) -> None:
    (sound,) = Labs().summaries()
    assert (sound.name, sound.provider, sound.phase, sound.nodes) == ("demo", "fake", "ready", ("cp1", "w1"))
    (demo.folder.path / "lab.json").write_text("{}")
    assert Labs().summaries() == [Summary("demo")]


# --- getting to where its machines are ------------------------------------------------------------------


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to the thread."""
    done: list[str] = []

    @contextlib.contextmanager
    def host_network(_home: Home) -> Iterator[str]:
        done.append("in")
        yield "private libvirtd"
        done.append("out")

    monkeypatch.setattr(providers, "enter_host_network", lambda _home: done.append("in"))
    monkeypatch.setattr(providers, "host_network", host_network)
    return done


def test_only_a_lab_on_libvirt_moves_the_thread(demo: Lab, moves: list[str]) -> None:
    Labs().open("demo")
    assert moves == []
    demo.folder.write_record(replace(demo.record, provider="libvirt"))
    Labs().open("demo")
    assert moves == ["in"]


def test_a_lab_that_is_opened_for_a_while_lets_the_thread_go(demo: Lab, moves: list[str]) -> None:
    demo.folder.write_record(replace(demo.record, provider="libvirt"))
    with Labs().opened("demo") as lab:
        assert lab == demo
        assert moves == ["in"]
    assert moves == ["in", "out"]


# --- what a killed klab has left ---------------------------------------------------------------------------


@pytest.fixture
def left(demo: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with an attempt that cannot be finished."""

    def fail(_lab: Lab, _note: object) -> str:
        raise LabError("the disk is full", details=["of w1"])

    demo.folder.attempt.parent.mkdir()
    demo.folder.attempt.touch()
    monkeypatch.setattr(module, "_recover", fail)
    return demo


def test_a_lab_that_is_to_be_changed_must_be_finished_first(left: Lab) -> None:
    with pytest.raises(LabError, match="the disk is full"):
        enter(left, changes=True)
    with pytest.raises(LabError, match="the disk is full"):
        Labs().open()


def test_a_lab_that_is_only_looked_at_need_not(left: Lab) -> None:
    told: list[str] = []
    enter(left, note=told.append)
    assert told == ["demo: the disk is full; of w1"]
    Labs().open(changes=False)
