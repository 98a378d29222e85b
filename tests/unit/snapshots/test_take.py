"""Taking snapshots: what is kept, what is refused, and that a failed one is undone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk
from support.fake_lab import opener

from lab.errors import Conflict, HostError, Interrupted, LabError, MachineError, UsageError
from lab.machines.captures import PartKind
from lab.machines.protocol import NodeState
from lab.snapshots.commands import take


def test_a_snapshot_of_a_running_lab(desk: Desk) -> None:
    taken = take(desk.lab, "lesson-1", note="before the exercise").manifest
    assert desk.states == {NodeState.RUNNING}
    assert desk.names == ["lesson-1"]
    assert desk.snapshot_store.pick("lesson-1") == taken
    assert desk.snapshot_store.current == taken.id
    assert (taken.note, taken.parent, taken.auto) == ("before the exercise", "", False)
    assert taken.lab_id == desk.lab.folder.record().id
    for node in taken.nodes:
        assert node.running
        assert [part.kind for part in node.parts] == [PartKind.MEMORY, PartKind.DISK]
        assert all(len(part.digest) == 32 for part in node.parts)
        assert 0 < node.suspended <= node.resumed
    assert taken.frozen >= 0
    assert taken.versions["kubernetes"] == desk.lab.plan.kubernetes.version
    desk.assert_nothing_left()


def test_the_next_one_lies_on_it(desk: Desk) -> None:
    first, second = take(desk.lab, "a").manifest, take(desk.lab, "b").manifest
    assert second.parent == first.id
    assert desk.snapshot_store.current == second.id


def test_names_are_made_from_the_time(desk: Desk) -> None:
    lab = desk.of(clock=lambda: 1_800_000_000.0)
    first, second = take(lab).manifest, take(lab).manifest
    assert second.name == f"{first.name}-2"


def test_a_snapshot_of_a_lab_that_is_off_has_no_ram(desk: Desk) -> None:
    desk.machines.power_off(["cp1", "w1"])
    taken = take(desk.lab).manifest
    assert desk.states == {NodeState.STOPPED}
    assert taken.running == ()
    assert taken.frozen == 0
    assert {part.kind for node in taken.nodes for part in node.parts} == {PartKind.DISK}


def test_a_node_that_is_off_stays_so(desk: Desk) -> None:
    desk.machines.power_off(["w1"])
    taken = take(desk.lab).manifest
    assert taken.running == ("cp1",)
    assert desk.machines.states() == {"cp1": NodeState.RUNNING, "w1": NodeState.STOPPED}


@pytest.mark.parametrize("state", [NodeState.PAUSED, NodeState.CRASHED, NodeState.ABSENT])
def test_a_machine_that_neither_runs_nor_is_off_is_refused(desk: Desk, state: NodeState) -> None:
    desk.machines.set_state("w1", state)
    with pytest.raises(Conflict) as caught:
        take(desk.lab)
    assert f"w1 is {state.value}" in caught.value.details
    assert "w1" in caught.value.hint
    assert desk.names == []


def test_no_room_is_refused_with_numbers(desk: Desk) -> None:
    with pytest.raises(HostError) as caught:
        take(desk.of(open_machines=opener(free=1 << 30)))
    folder = desk.lab.folder.path / "fake" / "captures"
    numbers = f"4 352 MiB may be needed, 1 024 MiB are free in {folder}: 3 328 MiB are missing"
    assert caught.value.details[0] == numbers
    assert any(line.startswith("w1 has 2 048 MiB") for line in caught.value.details)
    assert desk.states == {NodeState.RUNNING}
    desk.assert_nothing_left()


@pytest.mark.parametrize("name", ["", "-x", "a b", "rm", "../x", "x" * 64])
def test_a_name_that_is_none(desk: Desk, name: str) -> None:
    with pytest.raises(UsageError):
        take(desk.lab, name)


def test_a_name_that_is_taken(desk: Desk) -> None:
    take(desk.lab, "a")
    with pytest.raises(Conflict, match="already"):
        take(desk.lab, "a")
    assert desk.names == ["a"]


def test_one_that_another_klab_removes_just_now_is_not_called_damaged(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = take(desk.lab, "a").manifest
    take(desk.lab, "b")
    text = Path.read_text

    def late(self: Path, *args: Any, **options: Any) -> str:
        if self.stem == gone.id:
            self.unlink()
        return text(self, *args, **options)

    monkeypatch.setattr(Path, "read_text", late)
    manifests, damaged = desk.snapshot_store.all()
    assert ([m.name for m in manifests], damaged) == (["b"], [])


def test_a_lab_that_is_worked_on_or_half_made(desk: Desk) -> None:
    with desk.lab.folder.lock(), pytest.raises(Conflict, match="another klab"):
        take(desk.lab)
    desk.lab.folder.update_record(phase="creating")
    with pytest.raises(Conflict, match="half made"):
        take(desk.lab)


@pytest.mark.parametrize("method", ["suspend", "capture", "finalize", "parts", "content", "platform"])
def test_whatever_fails_is_taken_back(desk: Desk, method: str) -> None:
    take(desk.lab, "older")
    desk.note("second")
    with pytest.raises(MachineError) as caught:
        take(desk.breaking(method), "new")
    assert caught.value.message == "the disk is full"
    assert "nothing of the snapshot is left" in caught.value.details[-1]
    assert desk.states == {NodeState.RUNNING}
    assert desk.names == ["older"]
    assert desk.noted == "second"
    desk.assert_nothing_left()


def test_a_manifest_that_cannot_be_written_is_taken_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(desk.snapshot_store), "write", full)
    with pytest.raises(HostError, match="this machine refuses: No space left on device") as caught:
        take(desk.lab)
    assert "nothing of the snapshot is left" in caught.value.details[-1]
    assert desk.states == {NodeState.RUNNING}
    desk.assert_nothing_left()


def test_ctrl_c_takes_it_back(desk: Desk) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        take(desk.of(open_machines=opener(capture=interrupted)))
    assert "nothing of the snapshot is left" in caught.value.details[-1]
    assert desk.states == {NodeState.RUNNING}
    desk.assert_nothing_left()


def test_what_cannot_be_taken_back_at_once_is_left_to_the_next_command(desk: Desk) -> None:
    with pytest.raises(MachineError) as caught:
        take(desk.breaking("capture", "delete"))
    assert "the next klab command tries again" in caught.value.details[-1]
    assert desk.unfinished
    take(desk.lab, "again")
    assert desk.names == ["again"]
    desk.assert_nothing_left()


def test_a_clock_that_cannot_be_set_is_said_and_no_reason_to_fail(desk: Desk) -> None:
    taken = take(desk.breaking("set_clock"))
    assert any("the clock of w1 could not be set" in line for line in taken.warnings)
    assert desk.names == [taken.manifest.name]


def test_a_damaged_manifest_is_no_other_snapshots(desk: Desk) -> None:
    first = take(desk.lab, "a").manifest
    second = take(desk.lab, "b").manifest
    file = desk.lab.folder.snapshots / f"{first.id}.json"
    for text in ("", "{", "[]", "{}", json.dumps({"format": 9}), file.read_text().replace(first.id, "x")):
        file.write_text(text)
        manifests, damaged = desk.snapshot_store.all()
        assert manifests == [second]
        assert [each.id for each in damaged] == [first.id]
        with pytest.raises(LabError) as caught:
            desk.snapshot_store.pick(first.id)
        assert f"klab snapshot rm {first.id}" in caught.value.hint


def test_a_number_that_is_none_is_seen(desk: Desk) -> None:
    taken = take(desk.lab, "a").manifest
    file = desk.lab.folder.snapshots / f"{taken.id}.json"
    found = json.loads(file.read_text())
    for key in ("created", "name"):
        file.write_text(json.dumps({**found, key: ["a list"]}))
        assert desk.snapshot_store.manifests() == []
    file.write_text(json.dumps(found))
    assert replace(desk.snapshot_store.manifests()[0]) == taken
