"""Bringing a lab back: what comes back, what is refused untouched, and where a failure or a kill leads."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.desk import Desk, killed_at
from support.fake_lab import opener

from lab.errors import Conflict, LabError, MachineError, NotFound, UsageError
from lab.machines.captures import Part, PartKind, Rewrite
from lab.machines.fake.captures import FakeCaptures
from lab.machines.protocol import NodeState
from lab.snapshots import restore as module
from lab.snapshots.commands import prune, remove, rename, restore, take
from lab.snapshots.journal import STEPS, AttemptJournal
from lab.snapshots.names import AUTO_KEPT
from lab.snapshots.recover import recover


@pytest.fixture
def two(desk: Desk) -> Desk:
    """A lab with a snapshot of "first" and one of "second", which now has "now"."""
    take(desk.lab, "first")
    desk.note("second")
    take(desk.lab, "second")
    desk.note("now")
    return desk


def test_ram_and_disks_come_back(two: Desk) -> None:
    done = restore(two.lab, "first")
    assert two.noted == "first"
    assert two.states == {NodeState.RUNNING}
    assert done.running == ("cp1", "w1")
    assert two.snapshot_store.current == done.manifest.id
    assert list(done.seconds) == [
        "check",
        "automatic snapshot",
        "revert",
        "resume",
        "clocks",
        "verify",
        "digests of the automatic snapshot",
    ]
    two.assert_nothing_left()


def test_a_lab_that_was_copied_or_restored_from_a_backup_is_judged_by_its_bytes(two: Desk) -> None:
    for file in two.lab.home.root.rglob("*"):
        os.utime(file, (5, 5), follow_symlinks=False)
    assert restore(two.lab, "first").running == ("cp1", "w1")
    assert two.noted == "first"


def test_without_a_name_the_last_that_was_taken_by_hand(two: Desk) -> None:
    assert restore(two.lab).manifest.name == "second"
    assert restore(two.lab).manifest.name == "second"


def test_the_lab_as_it_was_before_is_kept(two: Desk) -> None:
    auto = restore(two.lab, "first").auto
    assert auto is not None
    assert auto.auto
    assert auto.note == "before the restore of first"
    assert auto.name in two.names
    restore(two.lab, auto.name)
    assert two.noted == "now"


def test_automatic_ones_prune_themselves_but_for_the_one_the_lab_stands_on(two: Desk) -> None:
    first = restore(two.lab, "first").auto
    assert first is not None
    restore(two.lab, first.name)
    for _ in range(AUTO_KEPT + 2):
        restore(two.lab, first.name)
    autos = [m for m in two.snapshot_store.manifests() if m.auto]
    assert len(autos) == AUTO_KEPT + 1
    assert first.id in {m.id for m in autos}
    two.assert_nothing_left()


def test_no_save_keeps_nothing(two: Desk) -> None:
    assert restore(two.lab, "first", keep=False).auto is None
    assert two.names == ["first", "second"]
    assert two.noted == "first"
    two.assert_nothing_left()


def test_a_lab_that_was_off_is_off_again(desk: Desk) -> None:
    desk.machines.power_off(["cp1", "w1"])
    take(desk.lab, "off")
    desk.machines.start(["cp1", "w1"])
    assert restore(desk.lab, "off").running == ()
    assert desk.states == {NodeState.STOPPED}


def test_a_lab_that_is_off_comes_back_running(two: Desk) -> None:
    two.machines.power_off(["cp1", "w1"])
    done = restore(two.lab, "first")
    assert two.noted == "first"
    assert two.states == {NodeState.RUNNING}
    assert done.auto is not None
    assert done.auto.running == ()


@pytest.mark.parametrize("state", [NodeState.PAUSED, NodeState.CRASHED])
def test_a_broken_machine_is_brought_back_too(two: Desk, state: NodeState) -> None:
    two.machines.set_state("w1", state)
    restore(two.lab, "first")
    assert two.states == {NodeState.RUNNING}


def test_a_machine_that_is_gone_comes_back_without_an_automatic_snapshot(two: Desk) -> None:
    two.machines.set_state("w1", NodeState.ABSENT)
    with pytest.raises(Conflict) as caught:
        restore(two.lab, "first")
    assert "--no-save" in caught.value.hint
    restore(two.lab, "first", keep=False)
    assert two.states == {NodeState.RUNNING}


def test_one_worker_alone(two: Desk) -> None:
    current = two.snapshot_store.current
    done = restore(two.lab, "first", node="w1")
    assert two.machines.read("w1", PartKind.DISK) == "first"
    assert two.machines.read("cp1", PartKind.DISK) == "now"
    assert two.states == {NodeState.RUNNING}
    assert done.nodes == ("w1",)
    assert two.snapshot_store.current == current


def test_a_control_plane_alone_is_refused_with_the_reason(two: Desk) -> None:
    with pytest.raises(UsageError) as caught:
        restore(two.lab, "first", node="cp1")
    assert "etcd" in caught.value.details[0]
    assert two.noted == "now"


def test_no_such_snapshot(desk: Desk) -> None:
    with pytest.raises(NotFound, match="has no snapshot"):
        restore(desk.lab)
    take(desk.lab, "a")
    with pytest.raises(NotFound) as caught:
        restore(desk.lab, "b")
    assert "a" in caught.value.hint


# --- what does not fit is refused, and nothing has been touched -----------------------------------------


def refused(desk: Desk, lab: Any = None) -> list[str]:
    """Why a restore of "first" is refused; the lab must be as it was."""
    names = desk.names
    with pytest.raises(Conflict) as caught:
        restore(lab or desk.lab, "first")
    assert caught.value.details[-1] == "the lab has not been touched"
    assert desk.noted == "now"
    assert desk.states == {NodeState.RUNNING}
    assert desk.names == names
    return list(caught.value.details)


def part(desk: Desk, kind: PartKind) -> Any:
    folder = desk.lab.folder.path / "fake" / "captures" / desk.snapshot_store.pick("first").id
    return folder / f"{kind}-w1"


def test_the_snapshot_of_another_lab(two: Desk) -> None:
    two.lab.folder.update_record(id="00000000-0000-0000-0000-000000000000")
    assert "it is of another lab" in refused(two)[0]


def test_another_emulator(two: Desk) -> None:
    lines = refused(two, two.of(open_machines=opener(version="2")))
    assert "the RAM of cp1 was saved with fake 1, here it is 2" in lines


def test_another_emulator_is_no_matter_to_a_lab_that_was_off(desk: Desk) -> None:
    desk.machines.power_off(["cp1", "w1"])
    desk.note("off")
    take(desk.lab, "off")
    desk.note("later")
    done = restore(desk.of(open_machines=opener(version="2")), "off")
    assert done.running == ()
    assert {desk.machines.read(name, PartKind.DISK) for name in ("cp1", "w1")} == {"off"}
    assert desk.states == {NodeState.STOPPED}


def test_a_lab_that_has_changed(two: Desk) -> None:
    plan = two.lab.plan
    other = replace(plan, nodes=(plan.nodes[0], replace(plan.nodes[1], name="w2")))
    two.machines.set_state("w2", NodeState.RUNNING)
    with pytest.raises(Conflict) as caught:
        restore(two.of(plan=other), "first")
    assert "w2 is in the lab, but not in the snapshot" in caught.value.details
    assert "w1 is in the snapshot, but no longer in the lab" in caught.value.details
    again = replace(plan, nodes=(plan.nodes[0], replace(plan.nodes[1], uuid="another")))
    with pytest.raises(Conflict, match="cannot be restored") as caught:
        restore(two.of(plan=again), "first")
    assert "w1 is another machine now" in caught.value.details[0]


@pytest.mark.parametrize("kind", list(PartKind))
def test_a_changed_byte(two: Desk, kind: PartKind) -> None:
    part(two, kind).write_text("First")
    assert "has changed" in refused(two)[0]


def test_a_missing_file(two: Desk) -> None:
    part(two, PartKind.DISK).unlink()
    assert "missing" in refused(two)[0]


def test_ram_that_is_missing(two: Desk) -> None:
    part(two, PartKind.MEMORY).unlink()
    assert "w1" in refused(two)[0]


def test_a_corrupt_manifest(two: Desk) -> None:
    identity = two.snapshot_store.pick("first").id
    (two.lab.folder.snapshots / f"{identity}.json").write_text("{")
    with pytest.raises(LabError, match="cannot be used"):
        restore(two.lab, identity)
    assert two.noted == "now"
    remove(two.lab, [identity])
    assert two.names == ["second"]
    two.assert_nothing_left()


# --- failures go back, kills are finished -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["suspend", "capture", "resume"])
def test_what_fails_before_a_machine_is_switched_leaves_the_lab_as_it_was(two: Desk, method: str) -> None:
    with pytest.raises(MachineError):
        restore(two.breaking(method), "first")
    recover(two.lab)
    assert two.noted == "now"
    assert two.states == {NodeState.RUNNING}
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


def failing_once(method: str, *, switched: bool = True) -> Any:
    """Machines of which this method fails the first time; `switched` says whether one has been ended by then."""
    calls = []

    def fail(self: FakeCaptures, *words: Any, **options: Any) -> Any:
        calls.append(words)
        if len(calls) == 1:
            if switched and method == "revert":
                self._books.set_state("w1", NodeState.STOPPED)
            raise MachineError("load of migration failed")
        return getattr(FakeCaptures, method)(self, *words, **options)

    return opener(**{method: fail})


@pytest.mark.parametrize("method", ["revert", "resume"])
def test_what_fails_later_goes_back_to_the_automatic_snapshot(two: Desk, method: str) -> None:
    current = two.snapshot_store.current
    with pytest.raises(MachineError, match="load of migration failed") as caught:
        restore(two.of(open_machines=failing_once(method)), "first")
    assert caught.value.details[-1] == "the lab is as it was before"
    assert two.noted == "now"
    assert two.states == {NodeState.RUNNING}
    assert two.names == ["first", "second"]
    assert two.snapshot_store.current == current
    two.assert_nothing_left()


@pytest.mark.parametrize("keep", [True, False])
def test_what_fails_before_a_machine_is_ended_needs_no_way_back(two: Desk, keep: bool) -> None:
    """On a full disk there may be no other."""
    reverted: list[str] = []
    opened = failing_once("revert", switched=False)

    def machines(*words: Any) -> Any:
        made = opened(*words)
        captures = made.captures()
        revert = captures.revert
        captures.revert = lambda key, *rest: (reverted.append(key), revert(key, *rest))
        made.captures = lambda: captures
        return made

    with pytest.raises(MachineError) as caught:
        restore(two.of(open_machines=machines), "first", keep=keep)
    assert caught.value.details[-1] == "the lab is as it was before"
    assert reverted == [two.snapshot_store.pick("first").id]
    assert two.noted == "now"
    assert two.states == {NodeState.RUNNING}
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


def test_machines_that_were_off_are_put_back_whatever_has_failed(two: Desk) -> None:
    """Of what is off nobody can tell whether it has been switched."""
    two.machines.power_off(["cp1", "w1"])
    with pytest.raises(MachineError):
        restore(two.of(open_machines=failing_once("revert", switched=False)), "first")
    assert any(e.phase == "save" for e in two.events)
    assert two.states == {NodeState.STOPPED}
    assert {two.machines.read(n, PartKind.DISK) for n in ("cp1", "w1")} == {"now"}
    two.assert_nothing_left()


# --- the lab is back, what comes afterwards fails --------------------------------------------------------------------


def settling(error: Exception, times: int = 1) -> Any:
    """Machines on whose disk a capture cannot be brought, the first times."""
    calls: list[str] = []

    def fail(self: FakeCaptures, key: str) -> None:
        calls.append(key)
        if len(calls) <= times:
            raise MachineError(f"capture {key} cannot be written to disk") from error
        FakeCaptures.finalize(self, key)

    return opener(finalize=fail)


def test_on_a_full_disk_the_automatic_snapshot_is_given_up_and_the_lab_is_back(two: Desk) -> None:
    done = restore(two.of(open_machines=settling(OSError(errno.ENOSPC, "No space left on device"))), "first")
    assert done.auto is None
    assert done.warnings == ("the lab as it was before could not be kept: the disk is full",)
    assert two.noted == "first"
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


def test_after_a_kill_too(two: Desk) -> None:
    killed_at("keep", lambda: restore(two.lab, "first"))
    said = recover(two.of(open_machines=settling(OSError(errno.ENOSPC, "No space left on device"))))
    assert said.endswith("the lab as it was before could not be kept: the disk is full")
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


def test_a_kill_while_it_is_given_up(two: Desk) -> None:
    killed_at("keep", lambda: restore(two.lab, "first"))
    two.machines.captures().delete([AttemptJournal(two.lab.folder).read().id])  # type: ignore[union-attr]
    assert "could not be kept" in recover(two.lab)
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


def test_an_automatic_snapshot_that_is_not_finished_is_said_and_finished_by_the_next_command(two: Desk) -> None:
    done = restore(two.of(open_machines=settling(OSError(errno.EIO, "Input/output error"))), "first")
    assert done.auto is None
    (said,) = done.warnings
    assert said.startswith("the automatic snapshot is not finished yet (capture ")
    assert said.endswith("the next klab command continues")
    assert two.noted == "first"
    assert "finished" in recover(two.lab)
    assert len(two.names) == 3
    assert two.noted == "first"
    two.assert_nothing_left()


def test_old_automatic_snapshots_that_cannot_be_removed_are_said(two: Desk) -> None:
    for _ in range(AUTO_KEPT):
        restore(two.lab, "first")

    def delete(self: FakeCaptures, keys: Any, **options: Any) -> None:
        if keys:
            raise MachineError("it is in use")
        FakeCaptures.delete(self, keys, **options)

    done = restore(two.of(open_machines=opener(delete=delete)), "first")
    assert done.auto is not None
    assert done.warnings == (
        "files that are no longer needed are not removed yet (it is in use); the next klab command continues",
    )
    assert two.unfinished
    assert "removal" in recover(two.lab)
    assert sum(m.auto for m in two.snapshot_store.manifests()) == AUTO_KEPT
    two.assert_nothing_left()


def test_a_cluster_that_does_not_come_back_is_a_failure_too(two: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise MachineError("w1 does not answer ssh")

    monkeypatch.setattr(module.Verification, "wait", never)
    with pytest.raises(MachineError, match="does not answer"):
        restore(two.lab, "first")
    assert two.noted == "now"
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


def test_without_an_automatic_snapshot_there_is_no_way_back_and_that_is_said(two: Desk) -> None:
    with pytest.raises(MachineError) as caught:
        restore(two.of(open_machines=failing_once("revert")), "first", keep=False)
    assert "no automatic snapshot" in caught.value.details[-1]
    assert not two.unfinished
    restore(two.lab, "first", keep=False)
    assert two.noted == "first"


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("step", ["suspend", "save", "revert", "resume", "clocks", "verify", "keep"])
def test_a_kill_at_any_step_of_a_restore(two: Desk, step: str, keep: bool) -> None:
    if not keep and step in {"suspend", "save"}:
        step = "revert"
    killed_at(step, lambda: restore(two.lab, "first", keep=keep))
    assert two.unfinished
    assert recover(two.lab)
    assert not two.unfinished
    assert two.states == {NodeState.RUNNING}
    if step in {"suspend", "save"}:
        assert two.noted == "now"
        assert two.names == ["first", "second"]
    else:
        assert two.noted == "first"
        assert len(two.names) == 2 + keep
        assert two.snapshot_store.current == two.snapshot_store.pick("first").id
    two.assert_nothing_left()
    assert recover(two.lab) == ""


@pytest.mark.parametrize("step", ["back", "undone"])
def test_a_kill_on_the_way_back(two: Desk, step: str) -> None:
    killed_at(step, lambda: restore(two.of(open_machines=failing_once("revert")), "first"))
    assert recover(two.lab) == "an unfinished restore was undone"
    assert two.noted == "now"
    assert two.states == {NodeState.RUNNING}
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


@pytest.mark.parametrize("step", STEPS["snapshot"])
def test_a_kill_at_any_step_of_a_snapshot(two: Desk, step: str) -> None:
    killed_at(step, lambda: take(two.lab, "third"))
    assert recover(two.lab) == "an unfinished snapshot was undone"
    assert two.noted == "now"
    assert two.states == {NodeState.RUNNING}
    assert two.names == ["first", "second"]
    two.assert_nothing_left()


def test_a_kill_right_after_the_manifest_leaves_a_whole_snapshot(two: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        type(two.snapshot_store).set_current = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        take(two.lab, "third")
        os._exit(1)
    os.waitpid(child, 0)
    assert recover(two.lab) == "a snapshot was complete, although klab was killed"
    assert two.names == ["first", "second", "third"]
    assert two.snapshot_store.current == two.snapshot_store.pick("third").id
    two.assert_nothing_left()
    restore(two.lab, "third")
    assert two.noted == "now"


@pytest.mark.parametrize("step", STEPS["remove"])
def test_a_kill_at_any_step_of_a_removal(two: Desk, step: str) -> None:
    killed_at(step, lambda: remove(two.lab, ["first"]))
    assert recover(two.lab) == "an unfinished removal of snapshots was finished"
    assert two.names == ["second"]
    two.assert_nothing_left()


def test_the_next_act_finishes_what_was_left_by_itself(two: Desk) -> None:
    killed_at("save", lambda: take(two.lab, "third"))
    assert two.states == {NodeState.PAUSED}
    take(two.lab, "third")
    assert two.names == ["first", "second", "third"]
    assert two.states == {NodeState.RUNNING}


def test_nobody_finishes_what_another_klab_is_doing(two: Desk) -> None:
    killed_at("save", lambda: take(two.lab, "third"))
    with two.lab.folder.lock():
        assert recover(two.lab) == ""
    assert two.unfinished
    assert recover(two.lab) != ""


def test_what_cannot_be_finished_is_said_and_kept(two: Desk) -> None:
    killed_at("revert", lambda: restore(two.lab, "first"))
    with pytest.raises(MachineError) as caught:
        recover(two.breaking("revert"))
    assert "unfinished" in caught.value.details[-1]
    assert two.unfinished
    recover(two.lab)
    assert two.noted == "first"


def test_a_damaged_journal_is_explained(two: Desk) -> None:
    file = two.lab.folder.snapshots / "attempt.json"
    for text in ("", "{", '{"act": "dance", "step": "save", "running": [], "nodes": []}'):
        file.write_text(text)
        with pytest.raises(LabError) as caught:
            recover(two.lab)
        assert "remove that file" in caught.value.hint


# --- remove, rename, prune ---------------------------------------------------------------------------------


def test_removal_lets_those_above_lie_on_the_one_below(two: Desk) -> None:
    third = take(two.lab, "third").manifest
    remove(two.lab, ["second"])
    assert two.snapshot_store.pick("third").parent == two.snapshot_store.pick("first").id
    remove(two.lab, ["first", third.id])
    assert two.names == []
    assert two.snapshot_store.current == ""
    two.assert_nothing_left()


def test_the_one_the_lab_stands_on_may_go(two: Desk) -> None:
    remove(two.lab, ["second"])
    assert two.snapshot_store.current == two.snapshot_store.pick("first").id
    restore(two.lab, "first")
    assert two.noted == "first"


def test_a_snapshot_goes_whose_files_cannot_be_read(two: Desk) -> None:
    """What is not known to be whole becomes one with no other; it keeps nobody from removing it."""
    merged: list[bool] = []

    def bad(_self: FakeCaptures, part: Part) -> Any:
        raise MachineError(f"{part.name} cannot be read")

    def rewrites(self: FakeCaptures, _keys: Sequence[str]) -> list[Rewrite]:
        names = [part.name for key in self.keys() for part in self.parts(key) if part.kind == PartKind.DISK]
        return [Rewrite(name, (name,)) for name in names]

    def delete(self: FakeCaptures, keys: Sequence[str], *, merge: bool = False) -> None:
        merged.append(merge)
        FakeCaptures.delete(self, keys, merge=merge)

    remove(two.of(open_machines=opener(content=bad, rewrites=rewrites, delete=delete)), ["first"])
    assert (two.names, merged) == (["second"], [False])
    remove(two.of(open_machines=opener(rewrites=rewrites, delete=delete)), [two.snapshot_store.pick("second").id])
    assert merged == [False, True]
    two.assert_nothing_left()


def test_no_snapshot_goes_when_one_of_the_names_is_wrong(two: Desk) -> None:
    with pytest.raises(NotFound):
        remove(two.lab, ["first", "nonsense"])
    assert two.names == ["first", "second"]


def test_prune_keeps_the_newest_that_were_taken_by_hand(two: Desk) -> None:
    auto = restore(two.lab, "first").auto
    assert auto is not None
    assert set(prune(two.lab, 1)) == {"first", auto.name}
    assert two.names == ["second"]
    assert prune(two.lab, 1) == []
    two.assert_nothing_left()


def test_rename(two: Desk) -> None:
    auto = restore(two.lab, "first").auto
    assert auto is not None
    assert rename(two.lab, auto.name, "good").auto is False
    assert "good" in two.names
    with pytest.raises(Conflict, match="already"):
        rename(two.lab, "good", "first")
    with pytest.raises(UsageError):
        rename(two.lab, "good", "prune")
    assert rename(two.lab, "good", "good").name == "good"
