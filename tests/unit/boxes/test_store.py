"""Built boxes: found, checked to the byte, removed only when nobody uses them."""

from __future__ import annotations

import json
import os
import shlex
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.shelved import flipped
from support.vmdks import write_vmdk

from lab.boxes import removal, store
from lab.boxes.cache import digest_file
from lab.boxes.manifest import (
    CONTENTS,
    DISK,
    FACTS,
    LIBVIRT,
    MANIFEST,
    UPGRADE,
    VMDK,
    Box,
    describe_file,
    read_box,
    write_manifest,
)
from lab.disks import vmdk
from lab.errors import BoxError, Conflict, HostError
from lab.machines.vagrant.vagrant_home import vagrant_home
from lab.store import Home, Record


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def make_box(home: Home, *, content: bytes = b"disk", created: float = 1.0) -> Box:
    work = home.boxes / "making"
    work.mkdir(parents=True)
    (work / DISK).write_bytes(content * 1000)
    (work / LIBVIRT).write_bytes(b"box")
    (work / CONTENTS).write_text("")
    digest = digest_file(work / DISK)
    box = Box(
        name="debian-13-k8s-1.35.4",
        digest=digest,
        inputs="i",
        kubernetes="1.35.4",
        recipe="debian-13",
        created=created,
        virtual_mib=8192,
        folder=store.folder_of(home, "debian-13-k8s-1.35.4", digest),
        files={p.name: describe_file(p) for p in sorted(work.iterdir())},
    )
    work.rename(box.folder)
    write_manifest(box)
    return box


def use(home: Home, lab: str, box: str) -> None:
    home.lab(lab).write_record(
        Record(id="x", name=lab, provider="libvirt", box=box, seat=0, phase="ready", created=1.0)
    )


def test_the_newest_box_is_found_as_it_was_written(home: Home) -> None:
    make_box(home, content=b"old", created=1)
    new = make_box(home, content=b"new", created=2)
    assert store.find_box(home, "debian-13", "1.35.4") == new


def test_no_box_names_the_command_that_makes_it(home: Home) -> None:
    with pytest.raises(BoxError) as caught:
        store.find_box(home, "debian-13", "1.35.4")
    assert "klab box build debian-13 --kubernetes 1.35.4" in caught.value.hint
    assert store.list_boxes(home) == []


def test_one_changed_byte_is_found_though_size_and_date_are_the_same(home: Home) -> None:
    box = make_box(home)
    store.verify(home, box)
    before = box.disk.stat()
    data = bytearray(box.disk.read_bytes())
    data[1234] ^= 1
    box.disk.write_bytes(data)
    os.utime(box.disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    store.check_box(box)  # the quick check cannot see it ...
    with pytest.raises(BoxError) as caught:
        store.verify(home, box)
    assert [line.partition(":")[0] for line in caught.value.details] == [DISK]


def test_the_quick_check_sees_a_write_a_cut_and_a_loss(home: Home) -> None:
    box = make_box(home)
    store.check_box(box)
    flipped(box.disk, 100)
    os.utime(box.disk, (5, 5))
    os.truncate(box.vagrant_box, 1)
    box.contents.unlink()
    with pytest.raises(BoxError) as caught:
        store.check_box(box)
    assert [line.partition(":")[0] for line in caught.value.details] == [CONTENTS, DISK, LIBVIRT]


def test_a_box_that_was_copied_is_judged_by_its_bytes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(home)
    for file in box.folder.iterdir():
        os.utime(file, (5, 5))  # as cp without dates, or a file system that keeps seconds only, leaves it
    moved = store.check_box(box)
    assert {file.mtime_ns for file in moved.files.values()} == {5 * 10**9}
    assert read_box(box.folder) == moved
    # The new dates are remembered: nothing is read a second time.
    monkeypatch.setattr(store, "digest_file", None)
    assert store.check_box(moved) == moved
    assert store.vagrant_box(home, moved, "libvirt", [20]) == box.vagrant_box


def test_a_manifest_changed_together_with_the_disk_is_found(home: Home) -> None:
    box = make_box(home)
    box.disk.write_bytes(b"another disk")
    forged = replace(
        box,
        digest=digest_file(box.disk),
        files={**box.files, DISK: describe_file(box.disk)},
    )
    write_manifest(forged)
    with pytest.raises(BoxError, match="damaged"):
        store.verify(home, read_box(box.folder))


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99}', "[1]", '{"format": 1, "files": ' + "[" * 5000])
def test_a_damaged_manifest_names_the_file_and_stops_no_other_box(home: Home, text: str) -> None:
    box, whole = make_box(home), make_box(home, content=b"whole")
    (box.folder / MANIFEST).write_text(text)
    assert store.find_box(home, "debian-13", "1.35.4") == whole
    assert store.list_boxes(home) == [whole]
    (error,) = store.damaged_boxes(home)
    assert MANIFEST in str(error.details)
    assert error.hint == f"rm -r {shlex.quote(str(box.folder))}"


@pytest.mark.parametrize("leaf", [*FACTS, "files", "size", "mtime_ns", "sha256"])
@pytest.mark.parametrize("value", [None, [], True])
def test_a_value_of_another_type_is_a_damaged_manifest(home: Home, leaf: str, value: object) -> None:
    box = make_box(home)
    manifest = json.loads((box.folder / MANIFEST).read_text())
    place = manifest if leaf in manifest else manifest["files"][DISK]
    place[leaf] = value
    (box.folder / MANIFEST).write_text(json.dumps(manifest))
    assert store.list_boxes(home) == []
    assert len(store.damaged_boxes(home)) == 1


def test_two_boxes_whose_digests_begin_alike_are_both_kept(home: Home) -> None:
    box = make_box(home)
    other = box.digest[:12] + "f" * 52
    assert store.folder_of(home, box.name, box.digest) == box.folder
    assert store.folder_of(home, box.name, other) == home.boxes / f"{box.name}@{other}"


def test_a_box_in_use_stays(home: Home) -> None:
    box = make_box(home)
    use(home, "1m2w", box.name)
    with pytest.raises(Conflict, match="in use"):
        removal.remove(home, box)
    assert store.list_boxes(home) == [box]


def test_removing_leaves_nothing(home: Home) -> None:
    box = make_box(home)
    removal.remove(home, box)
    assert list(home.boxes.iterdir()) == []


def vagrant_entry(box: Box, tail: str = "") -> Path:
    """Vagrant's entry of a box, as `vagrant box add` leaves it: a link to the disk."""
    entry = vagrant_home() / "boxes" / f"klab-VAGRANTSLASH-{box.folder.name.replace('@', '-')}{tail}"
    (entry / "1.0.0" / "libvirt").mkdir(parents=True)
    (entry / "1.0.0" / "libvirt" / "box.img").symlink_to(box.disk)
    return entry


def test_a_box_that_goes_is_gone_for_vagrant_too(home: Home) -> None:
    gone, stays = make_box(home, content=b"1"), make_box(home, content=b"2")
    entries = [vagrant_entry(gone), vagrant_entry(gone, "-virtualbox"), vagrant_entry(stays)]
    (vagrant_home() / "boxes" / "debian-VAGRANTSLASH-trixie64").mkdir()
    removal.remove(home, gone)
    assert [entry.exists() for entry in entries] == [False, False, True]
    assert (vagrant_home() / "boxes" / "debian-VAGRANTSLASH-trixie64").exists()
    assert stays.disk.exists()


def test_a_box_that_vagrant_cannot_forget_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(home)
    entry = vagrant_entry(box)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("lab.machines.vagrant.vagrant_home.shutil.rmtree", refuse)
    with pytest.raises(HostError, match="cannot be removed") as caught:
        removal.remove(home, box)
    assert str(entry) in caught.value.hint
    assert store.list_boxes(home) == [box]


def test_prune_keeps_the_newest_and_what_labs_use(home: Home) -> None:
    oldest = make_box(home, content=b"1", created=1)
    used = make_box(home, content=b"2", created=2)
    newest = make_box(home, content=b"3", created=3)
    use(home, "old-lab", used.short)
    (home.boxes / f"half{store.PARTIAL}").mkdir()
    assert removal.prune(home) == [oldest.folder.name, f"half{store.PARTIAL}"]
    assert store.list_boxes(home) == [newest, used]


def test_libvirt_gets_its_box_file_only_while_it_is_whole(home: Home) -> None:
    box = make_box(home)
    assert store.vagrant_box(home, box, "libvirt", [20]) == box.vagrant_box
    box.vagrant_box.unlink()
    with pytest.raises(BoxError, match="damaged"):
        store.vagrant_box(home, box, "libvirt", [20])


def test_a_vmdk_that_is_not_finished_takes_no_room(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    box = make_box(home)
    before = sorted(box.folder.iterdir())

    def convert(_disk: Path, target: Path) -> None:
        target.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_vmdk", convert)
    with pytest.raises(KeyboardInterrupt):
        store.ensure_vmdk(home, box)
    assert sorted(box.folder.iterdir()) == before


def test_what_a_killed_klab_has_left_is_removed_before_something_is_made(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box(home)
    before = sorted(box.folder.iterdir())
    (box.folder / f"{VMDK}{store.PARTIAL}").write_bytes(b"half of it")
    work = box.folder / f"{UPGRADE}{store.PARTIAL}.x"
    work.mkdir()
    (work / "disk.raw").write_bytes(b"half of it")
    monkeypatch.setattr(store.upgrade, "write", lambda _disk, _images, target: target.write_bytes(b"tar"))
    file = store.upgrade_file(home, box, [])
    assert sorted(box.folder.iterdir()) == sorted([*before, file])


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The VMDKs that were made of a box's disk; of 8 GiB each."""
    made: list[Path] = []

    def convert(_disk: Path, target: Path) -> None:
        made.append(target)
        write_vmdk(target)

    monkeypatch.setattr(store, "write_vmdk", convert)
    return made


def test_virtualbox_gets_a_box_for_each_size_of_disk(home: Home, conversions: list[Path]) -> None:
    box = make_box(home)
    file = store.vagrant_box(home, box, "virtualbox", [40, 20])
    again = read_box(box.folder)
    assert store.vagrant_box(home, again, "virtualbox", [20]) == file
    assert len(conversions) == 1
    store.verify(home, again)
    assert {VMDK, "virtualbox-20g.box", "virtualbox-40g.box"} <= set(again.files)
    for gib in (20, 40):
        with tarfile.open(box.folder / f"virtualbox-{gib}g.box") as members:
            (disk, description) = (members.extractfile(name) for name in (VMDK, "box.ovf"))
            assert disk is not None
            assert description is not None
            (box.folder.parent / "disk").write_bytes(disk.read())
            assert vmdk.capacity(box.folder.parent / "disk") == gib << 30
            assert f'ovf:capacity="{gib << 30}"' in description.read().decode()
    assert [file.name for file in box.folder.iterdir() if ".partial" in file.name] == []


def test_a_disk_smaller_than_the_boxs_is_refused(home: Home, conversions: list[Path]) -> None:
    with pytest.raises(BoxError, match="needs a disk of 8 GiB") as caught:
        store.vagrant_box(home, make_box(home), "virtualbox", [20, 7])
    assert caught.value.details == ("a node has one of 7 GiB",)
    assert conversions == []


def test_a_vmdk_that_is_none_is_a_damaged_box(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "write_vmdk", lambda _disk, target: target.write_bytes(b"vmdk" * 200))
    with pytest.raises(BoxError, match="is damaged") as caught:
        store.vagrant_box(home, make_box(home), "virtualbox", [20])
    assert caught.value.details == ("disk.vmdk: it is not a stream-optimized VMDK",)
