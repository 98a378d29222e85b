"""The parts of a snapshot that need no lab: captures, events and a clock are enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from support.desk import Desk

from lab.errors import MachineError
from lab.machines.captures import PartKind, differences
from lab.machines.protocol import NodeState
from lab.snapshots.check import lab_problems, node_problems
from lab.snapshots.freeze import describe, resume, save, seal, set_clocks
from lab.snapshots.manifest import Manifest
from lab.snapshots.session import Power

BOTH = Power(("cp1", "w1"), ())


def test_a_state_that_belongs_to_no_snapshot_is_saved_described_and_loaded(desk: Desk) -> None:
    captures, events, steps = desk.machines.captures(), desk.lab.journal(), []

    @contextmanager
    def step(name: str) -> Iterator[None]:
        steps.append((name, desk.states))
        yield

    moment = save(captures, events, step, "template", BOTH)
    assert steps == [("suspend", {NodeState.RUNNING}), ("save", {NodeState.PAUSED})]
    assert desk.states == {NodeState.PAUSED}
    moment.resumed = resume(captures, events, BOTH.running)
    assert desk.states == {NodeState.RUNNING}

    nodes = describe(desk.lab.plan, captures.platform(), BOTH, moment, lambda when: when / 2)
    assert [(node.name, node.running) for node in nodes] == [("cp1", True), ("w1", True)]
    assert all(node.guest_time == node.suspended / 2 for node in nodes)
    assert all(node.frozen >= 0 for node in nodes)
    parts = seal(desk.machines, events, "template", {})
    assert {name: [part.kind for part in found] for name, found in parts.items()} == {
        name: [part.kind for part in captures.parts("template") if part.node == name] for name in BOTH.running
    }

    desk.note("later")
    captures.suspend(BOTH.running)
    captures.revert("template", BOTH.nodes, lambda _node: None)
    captures.resume(BOTH.running)
    assert desk.noted == "first"
    assert desk.names == [], "no manifest was written"
    assert not desk.unfinished


def test_digests_that_are_known_are_not_taken_again_but_ram_is_read(desk: Desk) -> None:
    captures, events = desk.machines.captures(), desk.lab.journal()
    captures.suspend(BOTH.running)
    captures.capture("template", BOTH.nodes, lambda _node: None)
    known = dict.fromkeys((part.name for part in captures.parts("template")), "known")
    for found in seal(desk.machines, events, "template", known).values():
        assert {part.digest == "known" for part in found if part.kind == PartKind.DISK} == {True}
        assert {part.digest == "known" for part in found if part.kind == PartKind.MEMORY} == {False}


def test_a_clock_that_cannot_be_set_is_told_and_the_others_are_set(desk: Desk) -> None:
    asked: dict[str, float] = {}

    class Stubborn:
        def set_clock(self, name: str, guest_now, timeout: float) -> None:
            if name == "cp1":
                raise MachineError("the guest agent does not answer")
            asked[name] = guest_now()

    unset = set_clocks(Stubborn(), desk.lab.journal(), lambda: 5.0, BOTH.running)  # type: ignore[arg-type]
    assert unset == {"cp1": "the guest agent does not answer"}
    assert asked == {"w1": 5.0}
    states = {(event.node, event.phase, event.state) for event in desk.events}
    assert {("cp1", "clock", "failed"), ("w1", "clock", "done")} <= states


def test_the_nodes_are_compared_with_any_plan_and_a_snapshot_with_its_own_lab(desk: Desk) -> None:
    plan, platform = desk.lab.plan, desk.machines.captures().platform()
    moment = save(desk.machines.captures(), desk.lab.journal(), lambda _step: desk.lab.folder.lock(), "a", BOTH)
    nodes = describe(plan, platform, BOTH, moment, lambda when: when)
    manifest = Manifest("a", "a", "another", "other", "1m2w", 1.0, 1.0, nodes)
    assert lab_problems(manifest, desk.lab.record.id, plan) == ["it is of another lab: other (another)"]
    assert node_problems(manifest, plan) == []
    fewer = replace(plan, nodes=plan.nodes[:1])
    assert node_problems(manifest, fewer) == ["w1 is in the snapshot, but no longer in the lab"]
    saved = {node.name: node.platform for node in nodes}
    assert desk.machines.captures().unfit(saved) == []
    assert differences(saved, {}) == [
        f"the RAM of {name} was saved with fake 1, here it is unknown" for name in ("cp1", "w1")
    ]
