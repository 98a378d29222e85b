"""Whether snapshots' files are what they were: all of them are read, and who needs what is damaged is named."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk
from support.fake_lab import opener

from lab.cluster.lab import Lab
from lab.errors import Conflict, HostError, MachineError, NotFound
from lab.machines.captures import Part, PartKind
from lab.machines.fake.captures import FakeCaptures
from lab.machines.protocol import NodeState
from lab.snapshots.commands import rename, take, verify
from lab.snapshots.digest import file_problems

Content = Iterator[tuple[int, bytes | memoryview]]


def file_of(desk: Desk, snapshot: str, name: str) -> Path:
    return desk.lab.folder.path / "fake" / "captures" / desk.snapshot_store.pick(snapshot).id / name


def flip(file: Path) -> None:
    """Change a bit; size, inode and times stay."""
    before, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


@pytest.fixture
def two(desk: Desk) -> Desk:
    """A lab with the snapshots a and b, which is based on b."""
    take(desk.lab, "a")
    desk.note("second")
    take(desk.lab, "b")
    return desk


def test_what_is_whole_is_called_so_and_nothing_is_changed(two: Desk) -> None:
    two.note("now")
    before = {file: file.read_bytes() for file in two.lab.folder.path.rglob("*") if file.is_file()}
    found = verify(two.lab)
    assert (found.snapshots, found.whole, found.damage) == (("a", "b"), ("a", "b"), ())
    assert found.files == 2 * 2 * 2, "by snapshot and node RAM and a disk"
    keys = [two.snapshot_store.pick(name).id for name in ("a", "b")]
    assert found.size == sum(part.size for key in keys for part in two.machines.captures().parts(key))
    assert verify(two.lab, ["b"]).snapshots == ("b",)
    assert verify(two.lab, [two.snapshot_store.pick("a").id]).files == 4
    after = {file: file.read_bytes() for file in two.lab.folder.path.rglob("*") if file.is_file()}
    assert {file for file in after if after[file] != before.get(file)} <= {two.lab.folder.events, two.lab.folder.log}
    assert two.states == {NodeState.RUNNING}


def test_a_lab_without_snapshots(desk: Desk) -> None:
    found = verify(desk.lab)
    assert (found.snapshots, found.files, found.size, found.damage) == ((), 0, 0, ())
    with pytest.raises(NotFound):
        verify(desk.lab, ["a"])


@pytest.mark.parametrize("kind", PartKind)
def test_a_byte_that_changed_under_the_same_stamp_is_found(desk: Desk, kind: PartKind) -> None:
    """A restore trusts such a file: it is slow to read, and its size, inode and times are the same."""

    def stamped(self: FakeCaptures, key: str) -> list[Part]:
        return [replace(part, stamp="1:2:3") for part in FakeCaptures.parts(self, key)]

    lab = desk.of(open_machines=opener(parts=stamped))
    manifest = take(lab, "a").manifest
    file = file_of(desk, "a", f"{kind}-w1")
    flip(file)
    assert file_problems(lab.machines(), manifest) == [], "trusted by its stamp"
    found = verify(lab)
    (damage,) = found.damage
    assert (damage.file, damage.node, damage.snapshots) == (f"{manifest.id}/{file.name}", "w1", ("a",))
    known = next(p.digest for node in manifest.nodes for p in node.parts if p.name == damage.file)
    assert damage.why.startswith(f"{damage.file} has changed: its digest is ")
    assert damage.why.endswith(f", it was {known}")
    assert damage.below_lab is (kind == PartKind.DISK)
    assert (found.whole, found.damaged) == ((), ("a",))
    states = {(e.node, e.state, e.text) for e in desk.events if e.phase == "verify"}
    assert {("cp1", "done", ""), ("w1", "failed", damage.file)} < states


# --- files that several snapshots need ---------------------------------------------------------------------


def sharing(desk: Desk, read: list[str]) -> Lab:
    """The lab, all of whose snapshots have the disks of the first."""

    def shared(self: FakeCaptures, key: str) -> list[Part]:
        first = self.keys()[0]
        found = FakeCaptures.parts(self, key)
        return [replace(p, name=p.name.replace(key, first)) if p.kind == PartKind.DISK else p for p in found]

    def noted(self: FakeCaptures, part: Part) -> Content:
        read.append(part.name)
        return FakeCaptures.content(self, part)

    return desk.of(open_machines=opener(parts=shared, content=noted))


def test_a_file_of_several_snapshots_is_read_once_and_all_that_need_it_are_named(desk: Desk) -> None:
    read: list[str] = []
    lab = sharing(desk, read)
    for name in ("a", "b", "c"):
        take(lab, name)
    read.clear()
    assert verify(lab).damage == ()
    assert len(read) == len(set(read)) == 3 * 2 + 2
    flip(file_of(desk, "a", "disk-cp1"))
    for names in ([], ["b"]):
        (damage,) = verify(lab, names).damage
        assert (damage.snapshots, damage.below_lab) == (("a", "b", "c"), True)
    rename(lab, "c", "d")
    assert verify(lab, ["b"]).damaged == ("a", "b", "d")
    assert verify(lab, ["b"]).whole == ()


def test_only_the_snapshot_whose_manifest_says_something_else_is_damaged(desk: Desk) -> None:
    lab = sharing(desk, [])
    for name in ("a", "b"):
        manifest = take(lab, name).manifest
    node = manifest.nodes[0]
    bad = replace(node, parts=tuple(replace(part, digest="0" * 32) for part in node.parts))
    desk.snapshot_store.write(replace(manifest, nodes=(bad, *manifest.nodes[1:])))
    found = verify(lab)
    assert [damage.snapshots for damage in found.damage] == [("b",), ("b",)]
    assert (found.whole, found.damaged) == (("a",), ("b",))


@pytest.fixture
def deltas(desk: Desk) -> Lab:
    """The lab with a, whose RAM images are whole, and b and c, whose images are deltas of those."""

    def based(self: FakeCaptures, key: str) -> list[Part]:
        first, found = self.keys()[0], FakeCaptures.parts(self, key)
        on = [p.kind == PartKind.MEMORY and key != first for p in found]
        return [replace(p, base=p.name.replace(key, first)) if o else p for p, o in zip(found, on, strict=True)]

    def read(self: FakeCaptures, part: Part) -> Content:
        names = [name for name in (part.base, part.name) if name]
        data = b"".join((desk.lab.folder.path / "fake" / "captures" / name).read_bytes() for name in names)
        yield 0, data
        yield len(data), b""

    lab = desk.of(open_machines=opener(parts=based, content=read))
    for name in ("a", "b", "c"):
        take(lab, name)
    return lab


def test_what_deltas_build_on_counts_for_those_that_need_it(desk: Desk, deltas: Lab) -> None:
    file = file_of(desk, "a", "memory-w1")
    flip(file)
    base = f"{file.parent.name}/memory-w1"
    for names, snapshots in (([], ("a", "b", "c")), (["a"], ("a", "b", "c")), (["a", "c"], ("a", "c", "b"))):
        (damage,) = verify(deltas, names).damage
        assert damage.file == base
        assert sorted(damage.snapshots) == sorted(snapshots)
    (damage,) = verify(deltas, ["b"]).damage
    assert damage.snapshots == ("b",)
    assert damage.file == f"{desk.snapshot_store.pick('b').id}/memory-w1"
    assert damage.why.endswith(f"; or it is {base} that has changed, of which it is a delta")


def test_a_damaged_delta_is_its_own_snapshots_alone(desk: Desk, deltas: Lab) -> None:
    flip(file_of(desk, "b", "memory-w1"))
    found = verify(deltas)
    (damage,) = found.damage
    assert damage.snapshots == ("b",)
    assert " or it is " not in damage.why, "the other file was read, too"
    assert found.whole == ("a", "c")


# --- what cannot be read ----------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_read(two: Desk) -> None:
    def bad(self: FakeCaptures, part: Part) -> Content:
        if part.name.endswith("memory-cp1"):
            raise MachineError(f"{part.name} cannot be read", details=["Input/output error"])
        return FakeCaptures.content(self, part)

    flip(file_of(two, "a", "disk-cp1"))
    found = verify(two.of(open_machines=opener(content=bad)))
    assert [(damage.file.partition("/")[2], damage.snapshots) for damage in found.damage] == [
        ("memory-cp1", ("a",)),
        ("disk-cp1", ("a",)),
        ("memory-cp1", ("b",)),
    ]
    assert found.damage[0].why == f"{found.damage[0].file} cannot be read; Input/output error"


def test_a_missing_file_a_damaged_manifest_and_files_that_are_gone(two: Desk) -> None:
    take(two.lab, "c")
    take(two.lab, "d")
    gone, half = two.snapshot_store.pick("c").id, two.snapshot_store.pick("d").id
    file_of(two, "a", "disk-w1").unlink()
    file_of(two, "b", "memory-w1").unlink()
    two.machines.captures().delete([gone])
    (two.lab.folder.snapshots / f"{half}.json").write_text("{")
    found = verify(two.lab)
    by_snapshot = {name: each.why for each in found.damage for name in each.snapshots}
    assert set(by_snapshot) == {"a", "b", "c", half}
    assert "the file disk-w1 is missing" in by_snapshot["a"]
    assert by_snapshot["b"] == "w1 has 1 files, its manifest lists 2"
    assert by_snapshot["c"] == f"there is no capture '{gone}'"
    assert by_snapshot[half].startswith(f"{half}.json: it is damaged")
    assert found.whole == ()
    assert found.snapshots == ("a", "b", "c", half)
    assert verify(two.lab, ["a"]).damaged == ("a",)
    assert verify(two.lab, [half]).damaged == (half,)


def test_what_several_snapshots_lack_is_told_once(desk: Desk) -> None:
    def lost(_self: FakeCaptures, _key: str) -> list[Part]:
        raise MachineError("the file klab-demo_cp1.img is missing", details=["/pool/klab-demo_cp1.img"])

    for name in ("a", "b"):
        take(desk.lab, name)
    (damage,) = verify(desk.of(open_machines=opener(parts=lost)), ["b"]).damage
    assert damage.why == "the file klab-demo_cp1.img is missing; /pool/klab-demo_cp1.img"
    assert damage.snapshots == ("a", "b")


@pytest.mark.parametrize("method", ["parts", "content"])
def test_a_provider_that_does_not_answer_is_no_damage(two: Desk, method: str) -> None:
    def silent(*_: object) -> Any:
        raise HostError("libvirtd does not answer", hint="start it")

    with pytest.raises(HostError):
        verify(two.of(open_machines=opener(**{method: silent})))


# --- how it goes -------------------------------------------------------------------------------------------


def test_progress_is_told_and_not_written_down(two: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cluster.progress.EVERY_SECONDS", 0.0)
    verify(two.lab)
    told = [event.text for event in two.events if (event.node, event.phase, event.state) == ("w1", "verify", "begin")]
    assert told[0] == ""
    assert {text.partition(",")[0] for text in told[1:]} == {f"file {number} of 4" for number in range(1, 5)}
    assert told[1].endswith("0 MiB of 0 MiB")
    assert "file 1 of 4" not in two.lab.folder.events.read_text()
    assert two.lab.folder.events.read_text().count('"verify"') == 4, "by node its begin and its end"


def test_one_lab_is_verified_while_nobody_changes_it(two: Desk) -> None:
    with two.lab.folder.lock(), pytest.raises(Conflict):
        verify(two.lab)


def test_ctrl_c_does_not_wait_until_gigabytes_are_read(two: Desk) -> None:
    said: list[Callable[[], None]] = [lambda: os.kill(os.getpid(), signal.SIGINT)]

    def slow(_self: FakeCaptures, _part: Part) -> Content:
        for at in itertools.count():
            if said:
                said.pop()()
            time.sleep(0.01)
            yield at, b"x"

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        verify(two.of(open_machines=opener(content=slow)))
    assert time.monotonic() - began < 10
    assert verify(two.lab).damage == ()
