"""Writing bundles: what is in one, what is refused, and that whatever fails leaves what was there."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk
from support.kills import killed_in
from support.shelved import flipped, shelve

from lab.boxes import removal
from lab.boxes.manifest import DISK, LIBVIRT, Box, write_manifest
from lab.bundles import export_lab as module
from lab.bundles.export_lab import keep_snapshots, kept, write_bundle
from lab.bundles.file import open_bundle
from lab.bundles.layout import MANIFEST
from lab.bundles.pack import BLOCK
from lab.bundles.writer import Writer, writing
from lab.cluster.lab import Lab
from lab.errors import BoxError, Conflict, HostError, Interrupted, LabError, MachineError, NotFound, UsageError
from lab.machines.protocol import NodeState
from lab.snapshots.commands import take


@pytest.fixture
def box(desk: Desk) -> Box:
    """The lab's; the lab is off."""
    made = shelve(desk.lab.home, desk.lab.folder, desk.lab.plan)
    desk.machines.power_off(["cp1", "w1"])
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "web"
    folder.mkdir()
    return folder / "lesson-3.klab"


def nothing_beside(target: Path, *there: str) -> None:
    assert sorted(file.name for file in target.parent.iterdir()) == sorted(there)


# --- what is in one -----------------------------------------------------------------------------------


def test_it_holds_the_lab_and_nobody_else_may_read_it(desk: Desk, box: Box, target: Path) -> None:
    made = write_bundle(desk.lab, "lesson-3", target)
    assert open_bundle(target) == made
    made.verify(lambda _size: None)
    nothing_beside(target, target.name)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    found, record = made.bundle, desk.lab.folder.record()
    assert (found.name, found.lab, found.lab_id, found.lab_created) == ("lesson-3", "demo", record.id, record.created)
    assert (found.plan, found.scenario_text) == (desk.lab.plan, "version: 1\nname: demo\n")
    assert (found.box.digest, found.box.folder, found.with_box) == (box.digest, box.folder.name, True)
    assert found.host_keys == {"cp1": "fake key of cp1\n", "w1": "fake key of w1\n"}
    assert found.versions["box"] == box.folder.name
    assert desk.states == {NodeState.STOPPED}
    assert not desk.unfinished


def test_tar_unpacks_it_and_sha256sum_knows_its_manifest(desk: Desk, box: Box, target: Path, tmp_path: Path) -> None:
    write_bundle(desk.lab, "lesson-3", target)
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for words in (["tar", "-xf", target], ["sha256sum", "-c", f"{MANIFEST}.sha256"], ["gunzip", "-r", "."]):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    assert (folder / "nodes/w1.qcow2").read_text() == "disk of w1"
    assert (folder / "box/disk.qcow2").read_bytes() == box.disk.read_bytes()
    assert (folder / "pki/ca.key").read_bytes() == (desk.lab.folder.path / "pki/ca.key").read_bytes()
    with tarfile.open(target) as tar:
        assert not {f"box/{LIBVIRT}.gz", "ssh/known_hosts"} & set(tar.getnames())


def test_what_lies_beside_the_keys_is_left_out(desk: Desk, box: Box, target: Path) -> None:
    """Or nobody could read the bundle: klab's own files have plain names."""
    for stray in ("ssh/id_ed25519~", "ssh/my key.pub", "pki/.ca.key.swp", f"pki/{'x' * 80}"):
        (desk.lab.folder.path / stray).write_text("stray")
    write_bundle(desk.lab, "lesson-3", target)
    names = {member.name for member in open_bundle(target).bundle.members}
    assert {"ssh/id_ed25519", "pki/ca.key"} <= names
    assert not [name for name in names if "~" in name or " " in name or "swp" in name or "xx" in name]


def test_what_no_bundle_could_say_is_refused_before_it_is_written(desk: Desk, box: Box, target: Path) -> None:
    lab = replace(desk.lab, plan=replace(desk.lab.plan, pool="My Pool"))
    error = refused(lab, target)
    assert error.message == "lab 'demo' cannot be put into a bundle"
    assert "invalid plan: My Pool is not a storage pool" in error.details


def test_without_its_box_it_is_small(desk: Desk, box: Box, target: Path) -> None:
    made = write_bundle(desk.lab, "lesson-3", target, with_box=False)
    assert not made.bundle.with_box
    assert made.bundle.box.digest == box.digest


def test_disks_of_many_blocks(desk: Desk, box: Box, target: Path, tmp_path: Path) -> None:
    data = hashlib.shake_256(b"x").digest(2 * BLOCK + 12345)
    disk = desk.lab.folder.path / "fake" / "disk-w1"
    disk.write_bytes(data)
    made = write_bundle(desk.lab, "lesson-3", target)
    made.write(made.bundle.member("nodes/w1.qcow2.gz"), tmp_path / "disk", lambda _size: None)
    assert (tmp_path / "disk").read_bytes() == data


def test_progress_is_told(desk: Desk, box: Box, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cluster.progress.EVERY_SECONDS", 0.0)
    write_bundle(desk.lab, "lesson-3", target)
    told = [(e.node, e.phase, e.state) for e in desk.events]
    for node, phase in (("", "checkpoint"), ("cp1", "pack"), ("w1", "pack"), ("", "box")):
        assert (node, phase, "begin") in told
        assert (node, phase, "done") in told
    assert next(e.text for e in desk.events if e.phase == "box" and " of " in e.text) == "0 MiB of 0 MiB"


# --- what is refused ----------------------------------------------------------------------------------


def refused(lab: Lab, target: Path, name: str = "lesson-3", **options: bool) -> LabError:
    there = target.read_bytes() if target.is_file() else None
    with pytest.raises(LabError) as caught:
        write_bundle(lab, name, target, **options)
    assert (target.read_bytes() if target.is_file() else None) == there
    assert not list(target.parent.glob(".*"))
    assert caught.value.hint
    return caught.value


def test_a_lab_that_runs(desk: Desk, box: Box, target: Path) -> None:
    desk.machines.start(["w1"])
    error = refused(desk.lab, target)
    assert isinstance(error, Conflict)
    assert error.details == ("w1 runs",)
    assert "klab stop demo" in error.hint


@pytest.mark.parametrize("name", ["", ".x", "a/b", "x" * 64, "a b", "\n"])
def test_a_name_that_is_none(desk: Desk, box: Box, target: Path, name: str) -> None:
    assert isinstance(refused(desk.lab, target, name), UsageError)


def test_a_file_that_is_there(desk: Desk, box: Box, target: Path) -> None:
    target.write_text("a thesis")
    error = refused(desk.lab, target)
    assert isinstance(error, Conflict)
    assert "--force" in error.hint
    write_bundle(desk.lab, "lesson-3", target, replaces=True)
    assert open_bundle(target).bundle.name == "lesson-3"


def test_a_folder_in_its_place_or_none_to_put_it(desk: Desk, box: Box, target: Path) -> None:
    assert isinstance(refused(desk.lab, target.parent, replaces=True), UsageError)
    with pytest.raises(UsageError, match="there is no folder"):
        write_bundle(desk.lab, "a", target.parent / "none" / "a.klab")


def test_a_lab_whose_box_is_gone_or_damaged(desk: Desk, box: Box, target: Path) -> None:
    before = box.disk.stat()
    flipped(box.disk, 1234)
    assert isinstance(refused(desk.lab, target), BoxError)
    os.utime(box.disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    # What size and date do not tell is seen while it is read.
    error = refused(desk.lab, target)
    assert isinstance(error, BoxError)
    assert DISK in error.details[0]
    shutil.rmtree(box.folder)
    assert "is not in the store" in refused(desk.lab, target).message


def test_a_disk_without_room(desk: Desk, box: Box, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(target.parent)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    error = refused(desk.lab, target)
    assert isinstance(error, HostError)
    needed, there = error.details[0].split(" may be needed, ")
    assert there == f"0 MiB are free in {target.parent}: {needed} are missing"


def test_a_half_made_lab(desk: Desk, box: Box, target: Path) -> None:
    desk.lab.folder.update_record(phase="creating")
    assert "half made" in refused(desk.lab, target).message


# --- what fails half-way ------------------------------------------------------------------------------


def test_a_disk_that_cannot_be_read_leaves_nothing(desk: Desk, box: Box, target: Path) -> None:
    target.write_text("the old one")
    with pytest.raises(MachineError) as caught:
        write_bundle(desk.breaking("export"), "lesson-3", target, replaces=True)
    assert caught.value.details[-1] == "nothing of the bundle is left, and the lab has not been touched"
    assert target.read_text() == "the old one"
    nothing_beside(target, target.name)


@pytest.mark.parametrize("step", ["__init__", "begin", "add", "seal"])
def test_ctrl_c_and_a_full_disk_leave_nothing(
    desk: Desk, box: Box, target: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for error, wanted in ((KeyboardInterrupt(), Interrupted), (OSError(28, "No space left on device"), HostError)):

        def fail(*_: object, error: BaseException = error) -> Any:
            raise error

        monkeypatch.setattr(Writer, step, fail)
        with pytest.raises(wanted) as caught:
            write_bundle(desk.lab, "lesson-3", target)
        assert (caught.value.details[0] == str(target.parent)) is (wanted is HostError), "the full disk is named"
        nothing_beside(target)


@pytest.mark.parametrize("step", ["begin", "add", "seal"])
def test_a_kill_leaves_the_old_one_and_the_next_clears_up(desk: Desk, box: Box, target: Path, step: str) -> None:
    target.write_text("the old one")
    killed_in(Writer, step, lambda: write_bundle(desk.lab, "lesson-3", target, replaces=True))
    assert target.read_text() == "the old one"
    write_bundle(desk.lab, "lesson-3", target, replaces=True).verify(lambda _size: None)
    nothing_beside(target, target.name)


def test_what_a_kill_leaves_of_a_disk_is_cleared_up(desk: Desk, box: Box, target: Path) -> None:
    """The disk, and beside it copies of layers that klab may not read in place."""
    scratch = target.parent / f".{target.name}.partial"
    scratch.mkdir(mode=0o700)
    for name in ("cp1.qcow2", "cp1.qcow2.0", "cp1.qcow2.1"):
        (scratch / name).touch()
    write_bundle(desk.lab, "lesson-3", target)
    nothing_beside(target, target.name)


def test_two_that_write_the_same_file(desk: Desk, box: Box, target: Path) -> None:
    with writing(target), pytest.raises(Conflict, match="another klab is writing"):
        write_bundle(desk.lab, "lesson-3", target)
    write_bundle(desk.lab, "lesson-3", target)


# --- snapshots that are kept --------------------------------------------------------------------------


def test_snapshots_taken_by_hand_are_kept_while_the_lab_runs(desk: Desk, box: Box) -> None:
    desk.machines.start(["cp1", "w1"])
    for name in ("a", "b"):
        desk.note(name)
        taken = take(desk.lab, name).manifest
    desk.snapshot_store.write(replace(taken, name="auto-1", auto=True))
    desk.note("now")
    take(desk.lab, "c")
    made = keep_snapshots(desk.lab)
    assert [file.path.name for file in made] == ["demo-a.klab", "demo-c.klab"]
    assert {file.path.parent for file in made} == {desk.lab.home.checkpoints / box.folder.name}
    assert kept(desk.lab.home) == [file.path for file in made]
    assert [file.bundle.snapshot for file in made] == [
        desk.snapshot_store.pick("a").id,
        desk.snapshot_store.pick("c").id,
    ]
    assert desk.noted == "now"
    # The same again replaces; a snapshot of another lab with that name does not.
    assert [file.path for file in keep_snapshots(desk.lab)] == [file.path for file in made]
    desk.lab.folder.update_record(id="3c5c8bd4-6a0d-4d6c-9a0e-0d6f2bb0a5f1")
    for manifest in desk.snapshot_store.manifests():
        desk.snapshot_store.write(replace(manifest, lab_id="3c5c8bd4-6a0d-4d6c-9a0e-0d6f2bb0a5f1"))
    assert [file.path.name for file in keep_snapshots(desk.lab)] == ["demo-a-2.klab", "demo-c-2.klab"]


def test_their_box_stays_for_them(desk: Desk, box: Box) -> None:
    take(desk.lab, "a")
    (file,) = keep_snapshots(desk.lab)
    home = desk.lab.home
    shutil.rmtree(desk.lab.folder.path)
    with pytest.raises(Conflict, match="bundles need the box") as caught:
        removal.remove(home, box)
    assert caught.value.details == (str(file.path),)
    newer = replace(box, created=2.0, folder=box.folder.with_name(f"{box.name}@{'0' * 12}"))
    shutil.copytree(box.folder, newer.folder)
    write_manifest(newer)
    assert removal.prune(home) == []
    file.path.unlink()
    assert removal.prune(home) == [box.folder.name]


def test_a_lab_without_snapshots_is_not_silently_emptied(desk: Desk, box: Box) -> None:
    with pytest.raises(Conflict, match="no snapshot to keep"):
        keep_snapshots(desk.lab)


def test_a_damaged_snapshot_is_not_written(desk: Desk, box: Box) -> None:
    identity = take(desk.lab, "a").manifest.id
    flipped(desk.lab.folder.path / "fake" / "captures" / identity / "disk-w1", 3)
    with pytest.raises(Conflict, match="cannot be kept") as caught:
        keep_snapshots(desk.lab)
    assert "has changed" in caught.value.details[0]
    (desk.lab.folder.path / "fake" / "captures" / identity / "disk-w1").unlink()
    with pytest.raises(Conflict, match="cannot be kept") as caught:
        keep_snapshots(desk.lab)
    assert caught.value.details[0] == "the file disk-w1 is missing"
    assert "klab snapshot rm demo a" in caught.value.hint
    (desk.snapshot_store.path / f"{identity}.json").write_text("{")
    with pytest.raises(Conflict, match="not every snapshot"):
        keep_snapshots(desk.lab)
    assert kept(desk.lab.home) == []


def test_a_snapshot_of_another_size_of_the_lab_is_not_written(desk: Desk, box: Box) -> None:
    take(desk.lab, "a")
    fewer = replace(desk.lab.plan, nodes=desk.lab.plan.nodes[:1])
    with pytest.raises(Conflict) as caught:
        keep_snapshots(desk.of(plan=fewer))
    assert caught.value.details[0] == "w1 is in the snapshot, but no longer in the lab"


def test_there_is_no_file_to_open(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_bundle(tmp_path / "none.klab")
    with pytest.raises(UsageError, match="is a folder"):
        open_bundle(tmp_path)
