"""A box that comes from elsewhere: in the store only when every byte is right, and only once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.shelved import flipped, shelved_box

from lab.boxes import store
from lab.boxes.cache import Cache
from lab.boxes.store import Box
from lab.errors import BoxError, Conflict
from lab.store import Home


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """In a store elsewhere."""
    return shelved_box(Home(tmp_path / "elsewhere"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


class Source:
    """Fetches files of a box, and counts."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.fetched: list[str] = []

    def __call__(self, name: str, target: Path) -> None:
        self.fetched.append(name)
        shutil.copyfile(self.box.folder / name, target)


def test_it_is_a_box_like_one_that_was_built(home: Home, box: Box) -> None:
    source = Source(box)
    made = store.put(home, box, source)
    assert store.list_boxes(home) == [made]
    assert made.folder == home.boxes / box.folder.name
    assert sorted(source.fetched) == sorted(store.PORTABLE)
    store.verify(home, made)
    assert made.disk.read_bytes() == box.disk.read_bytes()
    assert made.kubectl.stat().st_mode & 0o111
    assert store.vagrant_box(home, made, "libvirt") == made.vagrant_box
    assert store.find_box(home, "debian-13", "1.35.4") == made


def test_once_is_enough(home: Home, box: Box) -> None:
    store.put(home, box, Source(box))
    again = Source(box)
    store.put(home, box, again)
    assert again.fetched == []
    flipped(home.boxes / box.folder.name / store.KUBECTL, 0)
    store.put(home, box, again)
    assert again.fetched
    store.verify(home, store.list_boxes(home)[0])


@pytest.mark.parametrize("name", store.PORTABLE)
def test_a_file_that_is_another_leaves_nothing(home: Home, box: Box, name: str) -> None:
    (box.folder / name).write_bytes(b"something else")
    with pytest.raises(BoxError, match="that comes here is damaged") as caught:
        store.put(home, box, Source(box))
    assert caught.value.details[0].startswith(f"{name}: SHA-256 is ")
    assert list(home.boxes.iterdir()) == []


def test_what_a_kill_left_is_in_nobodys_way(home: Home, box: Box) -> None:
    partial = home.boxes / f"{box.folder.name}.partial"
    partial.mkdir(parents=True)
    (partial / store.DISK).write_bytes(b"half")
    assert store.list_boxes(home) == []
    store.put(home, box, Source(box))
    assert [folder.name for folder in home.boxes.iterdir()] == [box.folder.name]


def test_one_at_a_time(home: Home, box: Box) -> None:
    with Cache(home.cache).lock():
        for act in (
            lambda: store.put(home, box, Source(box)),
            lambda: store.prune(home),
            lambda: store.ensure_vmdk(home, box),
            lambda: store.vagrant_box(home, box, "virtualbox"),
        ):
            with pytest.raises(Conflict):
                act()


def test_nobody_prunes_what_is_just_being_put(home: Home, box: Box) -> None:
    source = Source(box)

    def fetch(name: str, target: Path) -> None:
        with pytest.raises(Conflict, match="another box build is running"):
            store.prune(home)
        source(name, target)

    assert store.put(home, box, fetch).disk.is_file()
