"""Captures on VirtualBox, over the stand-in for VBoxManage."""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from support import vboxmanage
from support.vbox_lab import VirtualBoxLab

from lab.errors import MachineError, NotFound
from lab.machines.captures import PartKind, Room
from lab.machines.virtualbox import captures as module
from lab.machines.virtualbox.captures import VirtualBoxCaptures
from lab.machines.virtualbox.output import Shot, parse_names, parse_shots

# Transcribed from VBoxManageSnapshot.cpp and VBoxManageInfo.cpp (src/VBox/Frontends/VBoxManage, 7.0).
LIST = """SnapshotName="one"
SnapshotUUID="7e522742-f06b-4007-b7c0-1ca7e6cf6e18"
SnapshotDescription="a note"
SnapshotName-1="two"
SnapshotUUID-1="36814143-0ecb-42ba-b4a1-57f037089a65"
SnapshotName-1-1="three"
SnapshotUUID-1-1="bc6ca7c2-8756-4b05-9b04-3b05f0a41191"
SnapshotName-2="four"
SnapshotUUID-2="0d332287-ca2c-470b-bb95-01077d69e334"
CurrentSnapshotName="four"
CurrentSnapshotUUID="0d332287-ca2c-470b-bb95-01077d69e334"
CurrentSnapshotNode="SnapshotName-2"
"""
NODES = ["cp1", "w1"]

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def lab(open_lab: Callable[..., VirtualBoxLab], monkeypatch: pytest.MonkeyPatch) -> VirtualBoxLab:
    """Both machines run. A minute passes between two things that VirtualBox notes."""
    minutes = itertools.count()
    monkeypatch.setattr(vboxmanage, "_now", lambda: f"2026-11-21T{next(minutes) // 60:02}:{next(minutes) % 60:02}:00")
    monkeypatch.setattr(module, "TRY_SECONDS", 0.0)
    return open_lab(cp1="running", w1="running")


@pytest.fixture
def captures(lab: VirtualBoxLab) -> VirtualBoxCaptures:
    return lab.machines.captures()


def take(captures: VirtualBoxCaptures, key: str) -> None:
    captures.suspend(NODES)
    captures.capture(key, NODES, print)
    captures.resume(NODES)


def settings_of(lab: VirtualBoxLab, node: str) -> Path:
    folder = Path(lab.virtualbox.machines[lab.name(node)]["folder"])
    return folder / f"{lab.name(node)}.vbox"


def shots_of(lab: VirtualBoxLab, node: str) -> dict[str, Shot]:
    file = settings_of(lab, node)
    return parse_shots(file.read_text(), file.parent)


# --- reading ----------------------------------------------------------------------------------------


def test_names_are_those_of_the_whole_tree() -> None:
    assert parse_names(LIST) == {"one", "two", "three", "four"}
    assert parse_names("This machine does not have any snapshots\n") == set()


def test_a_settings_file_tells_the_files_of_each_snapshot(lab: VirtualBoxLab) -> None:
    lab.put("poweroff", "cp1")
    lab.do("snapshot", lab.name("cp1"), "take", "one")
    lab.put("paused", "cp1")
    lab.do("snapshot", lab.name("cp1"), "take", "two")
    shots, folder = shots_of(lab, "cp1"), settings_of(lab, "cp1").parent
    assert list(shots) == ["one", "two"]
    assert shots["one"].state is None
    assert shots["one"].disks == (folder / "box-disk001.vmdk",)
    assert shots["two"].state is not None
    assert shots["two"].state.read_text() == "RAM of two"
    assert shots["two"].disks == (shots["two"].disks[0], folder / "box-disk001.vmdk")
    assert shots["two"].disks[0].parent == folder / "Snapshots"
    assert shots["one"].stamp < shots["two"].stamp


def test_storage_beside_the_hardware_as_older_settings_have_it(lab: VirtualBoxLab) -> None:
    lab.do("snapshot", lab.name("cp1"), "take", "one")
    file = settings_of(lab, "cp1")
    text = file.read_text().replace("<Hardware><Storage", "<Hardware/><Storage", 1)
    text = text.replace("</StorageControllers></Hardware>", "</StorageControllers>", 1)
    assert parse_shots(text, file.parent)["one"].disks == (file.parent / "box-disk001.vmdk",)


def test_the_disk_that_a_linked_clone_lies_on_is_no_part_of_it(lab: VirtualBoxLab) -> None:
    """It belongs to all machines made from it."""
    lab.put("poweroff", "cp1", "w1")
    lab.do("snapshot", lab.name("w1"), "take", "base")
    lab.do("unregistervm", lab.name("cp1"), "--delete")
    clone = ["--register", "--name", lab.name("cp1"), "--snapshot", "base", "--options", "link"]
    lab.do("clonevm", lab.name("w1"), *clone)
    lab.do("snapshot", lab.name("cp1"), "take", "one")
    (own,) = shots_of(lab, "cp1")["one"].disks
    assert own.parent == settings_of(lab, "cp1").parent / "Snapshots"


@pytest.mark.parametrize("text", ["", "<VirtualBox", "<other/>"])
def test_what_is_no_settings_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - what it says is the parser's
        parse_shots(text, tmp_path)


# --- standing still ---------------------------------------------------------------------------------


def test_suspend_and_resume(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    lab.put("paused", "w1")
    assert sorted(captures.suspend(NODES)) == NODES
    assert set(lab.states.values()) == {"paused"}
    assert sorted(captures.resume(NODES)) == NODES
    assert set(lab.states.values()) == {"running"}
    captures.resume(NODES)
    assert lab.count("controlvm", "resume", node="w1") == 1


def test_one_that_is_off_neither_stands_still_nor_goes_on(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    lab.put("poweroff", "w1")
    with pytest.raises(MachineError, match="w1 is not running") as caught:
        captures.suspend(NODES)
    assert caught.value.hint == "klab start demo w1"
    assert lab.states["cp1"] == "running", "nobody is suspended for nothing"
    captures.suspend(["cp1"])
    with pytest.raises(MachineError, match="w1 cannot be resumed"):
        captures.resume(NODES)
    assert lab.states["cp1"] == "running", "those that can be resumed are"


def test_one_that_refuses(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    lab.programs.broken = {"pause"}
    with pytest.raises(MachineError, match="cp1 cannot be suspended") as caught:
        captures.suspend(["cp1"])
    assert "VBoxManage: error: controlvm failed" in caught.value.details


def test_a_node_without_a_machine_or_of_no_such_name(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    lab.put("poweroff", "w1")
    lab.do("unregistervm", lab.name("w1"), "--delete")
    with pytest.raises(MachineError, match="no machine of w1") as caught:
        captures.suspend(NODES)
    assert "klab node replace w1" in caught.value.hint
    with pytest.raises(NotFound):
        captures.suspend(["w9"])


@pytest.mark.parametrize("nodes", [NODES, []])
def test_room_is_that_of_the_fullest_disk(
    captures: VirtualBoxCaptures, lab: VirtualBoxLab, monkeypatch: pytest.MonkeyPatch, nodes: list[str]
) -> None:
    """Disks take room, whether or not a machine runs; RAM does only of one that is on."""
    lab.put("poweroff", "w1")
    free = {settings_of(lab, "cp1").parent: 5, settings_of(lab, "w1").parent: 3}
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: Usage(9, 9 - free[folder], free[folder]))
    needed = {"cp1": 2048 << 20} if nodes else {}
    assert captures.room(nodes) == Room(settings_of(lab, "w1").parent, 3, needed)


def test_the_platform_is_that_of_the_whole_host(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    lab.virtualbox.change(kernel=False)  # it says so before anything else
    told = {"VirtualBox": "7.0.20r163906", "processor": "Intel(R) Core(TM) i5-7500 CPU @ 3.40GHz"}
    assert captures.platform() == {"cp1": told, "w1": told}


@pytest.mark.parametrize("now", ["7.0.20r163906", "7.0.20_Debianr163907", "7.0.100r170000", "7.1.0r164728", "10.0.0r1"])
def test_saved_ram_fits_a_virtualbox_that_is_no_older(
    captures: VirtualBoxCaptures, lab: VirtualBoxLab, now: str
) -> None:
    saved = captures.platform()
    lab.virtualbox.change(version=now)
    assert captures.unfit(saved) == []


@pytest.mark.parametrize("now", ["7.0.18r162988", "7.0.9r1", "6.1.50r161033", "nothing that is known"])
def test_saved_ram_does_not_fit_an_older_virtualbox(captures: VirtualBoxCaptures, lab: VirtualBoxLab, now: str) -> None:
    saved = captures.platform()
    lab.virtualbox.change(version=now)
    assert captures.unfit(saved) == [
        f"the RAM of {node} was saved with VirtualBox 7.0.20r163906, here it is {now}, which is older" for node in NODES
    ]


def test_saved_ram_wants_its_processor(captures: VirtualBoxCaptures) -> None:
    saved = {"cp1": captures.platform()["cp1"] | {"processor": "another"}, "w1": {}}
    here = "here it is Intel(R) Core(TM) i5-7500 CPU @ 3.40GHz"
    assert captures.unfit(saved) == [
        f"the RAM of cp1 was saved with processor another, {here}",
        f"the RAM of w1 was saved with processor unknown, {here}",
    ]


# --- captures ---------------------------------------------------------------------------------------


def test_no_capture_yet(captures: VirtualBoxCaptures) -> None:
    assert captures.keys() == []
    captures.delete(["one"])
    for act in (lambda: captures.parts("one"), lambda: captures.revert("one", NODES, print)):
        with pytest.raises(NotFound):
            act()


def test_ram_and_disks_of_suspended_machines(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    saved: list[str] = []
    captures.suspend(NODES)
    captures.capture("one", NODES, saved.append)
    assert sorted(saved) == NODES
    assert set(lab.states.values()) == {"paused"}
    assert captures.keys() == ["one"]
    parts = captures.parts("one")
    assert [(part.node, part.kind, Path(part.name).suffix) for part in parts] == [
        ("cp1", PartKind.MEMORY, ".sav"),
        ("cp1", PartKind.DISK, ".vmdk"),
        ("w1", PartKind.MEMORY, ".sav"),
        ("w1", PartKind.DISK, ".vmdk"),
    ]
    assert all(part.size > 0 for part in parts)
    assert list(captures.content(parts[0])) == [(0, b"RAM of one"), (len("RAM of one"), b"")]
    captures.finalize("one")


def test_machines_that_are_off_have_no_ram_in_it(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    lab.put("poweroff", *NODES)
    captures.capture("off", NODES, print)
    assert {part.kind for part in captures.parts("off")} == {PartKind.DISK}
    captures.revert("off", NODES, print)
    assert set(lab.states.values()) == {"poweroff"}


def test_a_running_machine_is_not_saved(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    captures.suspend(["cp1"])
    with pytest.raises(MachineError, match="w1 must be paused before it is saved, but it runs"):
        captures.capture("one", NODES, print)
    assert [lab.snapshots(node) for node in NODES] == [[], []]


@pytest.mark.parametrize("state", ["running", "paused", "poweroff", "aborted", "gurumeditation", "saved"])
def test_revert_whatever_the_machines_do(captures: VirtualBoxCaptures, lab: VirtualBoxLab, state: str) -> None:
    """One that was just switched off is locked for a moment: it is tried again."""
    take(captures, "one")
    lab.put(state, *NODES)
    lab.virtualbox.change(locked=2)
    back: list[str] = []
    captures.revert("one", NODES, back.append)
    assert sorted(back) == NODES
    assert set(lab.states.values()) == {"saved"}
    captures.resume(NODES)
    assert set(lab.states.values()) == {"running"}


def test_a_machine_that_stays_locked_is_named(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    take(captures, "one")
    lab.virtualbox.change(locked=1_000_000)
    with pytest.raises(MachineError, match="w1 cannot be restored") as caught:
        captures.revert("one", ["w1"], print)
    assert any("already locked for a session" in line for line in caught.value.details)
    assert lab.count("snapshot", "restore", "one", node="w1") == module.RESTORE_TRIES


def test_what_only_some_machines_have_is_no_capture(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    take(captures, "one")
    take(captures, "two")
    lab.do("snapshot", lab.name("w1"), "delete", "two")
    assert captures.keys() == ["one"]
    with pytest.raises(NotFound, match="w1 has no capture"):
        captures.revert("two", NODES, print)
    assert lab.states["cp1"] == "running", "nothing is switched off for it"
    captures.delete(["two"])
    assert [lab.snapshots(node) for node in NODES] == [["one"], ["one"]]


def test_forget_takes_it_from_every_machine_and_again(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    take(captures, "one")
    take(captures, "two")
    captures.delete(["one"])
    captures.delete(["one"])
    assert captures.keys() == ["two"]
    assert lab.count("snapshot", "delete", "one", node="w1") == 1


def test_disks_may_be_written_anew_when_one_goes(captures: VirtualBoxCaptures) -> None:
    take(captures, "one")
    take(captures, "two")
    assert captures.rewrites(["none"]) == []
    names = {part.name for part in captures.parts("two") if part.kind == PartKind.DISK}
    assert {rewrite.name for rewrite in captures.rewrites(["one"])} == names
    assert all(set(rewrite.sources) == names for rewrite in captures.rewrites(["one"]))


@pytest.mark.parametrize(
    "act",
    [
        lambda captures, _part: captures.parts("one"),
        lambda captures, _part: captures.finalize("one"),
        lambda captures, part: list(captures.content(part)),
    ],
)
def test_a_missing_file_is_named(captures: VirtualBoxCaptures, act: Callable[..., object]) -> None:
    take(captures, "one")
    part = captures.parts("one")[0]
    Path(part.name).unlink()
    with pytest.raises(MachineError, match=r"\.sav (is missing|cannot be read)"):
        act(captures, part)


def test_settings_that_cannot_be_read(captures: VirtualBoxCaptures, lab: VirtualBoxLab) -> None:
    settings_of(lab, "cp1").write_text("<VirtualBox")
    with pytest.raises(MachineError, match="the settings of cp1 cannot be read"):
        captures.keys()
