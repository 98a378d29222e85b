"""A box that comes from elsewhere: in the store only when every byte is right, and only once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.shelved import flipped, shelved_box, write_disk

from lab import process
from lab.boxes import incoming, removal, store
from lab.boxes.cache import Cache
from lab.boxes.kubectl import kubectl_for
from lab.boxes.manifest import DISK, LIBVIRT, MANIFEST, UPGRADE, VMDK, Box, read_box
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError, Conflict, HostError
from lab.store import Home


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """In a store elsewhere."""
    return shelved_box(Home(tmp_path / "elsewhere"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def foreign(box: Box) -> Box:
    """The same box, as a bundle from far ahead brings it."""
    return replace(box, origin="lesson-3", created=9e9)


class Source:
    """Fetches files of a box, and counts."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.fetched: list[str] = []

    def __call__(self, name: str, target: Path) -> None:
        self.fetched.append(name)
        shutil.copyfile(self.box.folder / name, target)


def test_it_is_a_disk_and_no_program(home: Home, box: Box) -> None:
    source = Source(box)
    made = incoming.put(home, foreign(box), source)
    assert store.list_boxes(home) == [made]
    assert made.folder == home.boxes / box.folder.name
    assert source.fetched == [DISK]
    store.verify(home, made)
    assert made.disk.read_bytes() == box.disk.read_bytes()
    assert sorted(file.name for file in made.folder.iterdir()) == sorted([DISK, LIBVIRT, MANIFEST])
    assert not [file for file in made.folder.iterdir() if file.stat().st_mode & 0o111]
    assert store.vagrant_box(home, made, "libvirt", [20]) == made.vagrant_box


def test_it_serves_no_other_lab(home: Home, box: Box) -> None:
    made = incoming.put(home, foreign(box), Source(box))
    assert (made.origin, made.created < 10**10) == ("lesson-3", True)  # the time of the put, whatever the file says
    with pytest.raises(BoxError, match="has not been built here") as caught:
        store.find_box(home, "debian-13", DEFAULT)
    assert "came with lesson-3 and is not trusted for other labs" in caught.value.details[0]
    assert f"klab box trust {made.short}" in caught.value.hint
    own = shelved_box(home, b"own")
    assert store.find_box(home, "debian-13", DEFAULT) == own
    assert kubectl_for(home, made.folder.name, DEFAULT) == str(own.kubectl)
    assert kubectl_for(home, made.folder.name, "1.34.0") == "kubectl"


def test_it_is_no_reason_to_prune_one_that_was_built_here(home: Home, box: Box) -> None:
    made, own = incoming.put(home, foreign(box), Source(box)), shelved_box(home, b"own")
    assert removal.prune(home) == [made.folder.name]
    assert store.list_boxes(home) == [own]


def test_a_person_can_trust_it(home: Home, box: Box) -> None:
    made = incoming.put(home, foreign(box), Source(box))
    assert incoming.trust(home, made).origin == ""
    assert store.find_box(home, "debian-13", DEFAULT).digest == box.digest


def test_once_is_enough(home: Home, box: Box) -> None:
    incoming.put(home, box, Source(box))
    again = Source(box)
    incoming.put(home, box, again)
    assert again.fetched == []
    flipped(home.boxes / box.folder.name / DISK, 70_000)
    os.utime(home.boxes / box.folder.name / DISK)
    incoming.put(home, box, again)
    assert again.fetched
    store.verify(home, store.list_boxes(home)[0])


def test_a_disk_that_is_another_leaves_nothing(home: Home, box: Box) -> None:
    box.disk.write_bytes(b"something else")
    with pytest.raises(BoxError, match="is damaged, or klab did not build it") as caught:
        incoming.put(home, box, Source(box))
    assert caught.value.details[0].startswith(f"{DISK}: SHA-256 is ")
    assert list(home.boxes.iterdir()) == []


def on_a_file(disk: Path) -> None:
    secret = disk.with_name("secret")
    secret.write_bytes(b"root:x" * 1000)
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, disk], timeout=60)


def on_a_description(disk: Path) -> None:
    on_a_file(disk)
    name = 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/hostname"}}'
    process.run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, disk], timeout=60)


def with_a_data_file(disk: Path) -> None:
    options = f"data_file={disk.with_name('data')},data_file_raw=on"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, disk, "1M"], timeout=60)


def encrypted(disk: Path) -> None:
    secret = ["--object", "secret,id=s,data=abc123"]
    options = ["-o", "encrypt.format=luks,encrypt.key-secret=s"]
    process.run(["qemu-img", "create", "-q", *secret, "-f", "qcow2", *options, disk, "1M"], timeout=60)


def raw(disk: Path) -> None:
    disk.write_bytes(b"\0" * 1_000_000)


def of_vmware(disk: Path) -> None:
    process.run(["qemu-img", "create", "-q", "-f", "vmdk", disk, "1M"], timeout=60)


@pytest.mark.parametrize("make", [on_a_file, on_a_description, with_a_data_file, encrypted, raw, of_vmware])
def test_a_disk_that_reaches_for_other_files_or_is_another_format(
    home: Home, box: Box, make: Callable[[Path], None]
) -> None:
    box.disk.unlink()
    make(box.disk)
    hostile = replace(box, digest=store.digest_file(box.disk))
    with pytest.raises(BoxError, match="klab did not build it"):
        incoming.put(home, hostile, Source(hostile))
    assert list(home.boxes.iterdir()) == []


def test_one_that_begins_with_the_same_digest_stays(home: Home, box: Box) -> None:
    """48 bits can be met by trying; the whole digest cannot."""
    there = incoming.put(home, box, Source(box))
    write_disk(box.disk, b"another")
    digest = store.digest_file(box.disk)
    # As if it began alike: the box that is there takes this one's place.
    place = home.boxes / f"{box.name}@{digest[:12]}"
    there.folder.rename(place)
    made = incoming.put(home, replace(box, digest=digest), Source(box))
    assert made.folder.name == f"{box.name}@{digest}"
    assert {each.digest for each in store.list_boxes(home)} == {there.digest, digest}
    store.verify(home, made)


def test_what_a_kill_left_is_in_nobodys_way(home: Home, box: Box) -> None:
    partial = home.boxes / f"{box.folder.name}.partial"
    partial.mkdir(parents=True)
    (partial / DISK).write_bytes(b"half")
    assert store.list_boxes(home) == []
    incoming.put(home, box, Source(box))
    assert [folder.name for folder in home.boxes.iterdir()] == [box.folder.name]


def test_one_at_a_time(home: Home, box: Box) -> None:
    with Cache(home.cache).lock():
        for act in (
            lambda: incoming.put(home, box, Source(box)),
            lambda: removal.prune(home),
        ):
            with pytest.raises(Conflict):
                act()


def test_what_is_made_of_a_box_waits_for_that_box_alone(home: Home, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of another box takes a quarter of an hour."""
    monkeypatch.setattr(store, "write_vmdk", lambda _disk, target: target.write_bytes(b"vmdk"))
    monkeypatch.setattr(store.upgrade, "write", lambda _disk, _images, target: target.write_bytes(b"tar"))
    made = incoming.put(home, box, Source(box))
    monkeypatch.setattr(store, "_PATIENCE", 0.0)
    with store._alone_with(home, made), pytest.raises(HostError, match=f"for the box {made.name}, which process"):
        store.upgrade_file(home, made, [])
    with Cache(home.cache).lock():
        store.ensure_vmdk(home, made)
        file = store.upgrade_file(home, made, [])
    assert {VMDK, UPGRADE} <= read_box(made.folder).files.keys()
    assert file.read_bytes() == b"tar"
    file.write_bytes(b"rat")
    os.utime(file, (5, 5))
    with pytest.raises(BoxError, match="is damaged"):
        store.upgrade_file(home, read_box(made.folder), [])


def test_nobody_prunes_what_is_just_being_put(home: Home, box: Box) -> None:
    source = Source(box)

    def fetch(name: str, target: Path) -> None:
        with pytest.raises(Conflict, match="is building or changing boxes here"):
            removal.prune(home)
        source(name, target)

    assert incoming.put(home, box, fetch).disk.is_file()
