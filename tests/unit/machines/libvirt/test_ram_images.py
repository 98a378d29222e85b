"""RAM images on disk: a delta where that is worth it and possible, else the image stays whole."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from lab.disks import ram_delta
from lab.errors import MachineError
from lab.machines.libvirt import ram_images
from lab.machines.libvirt.capture_index import CaptureIndex, Entry, Saved
from lab.machines.libvirt.volumes import LayerStore

SAVED = Saved("w1.img", "w1.two.ram", "<domain/>")
OLDER = "w1.one.ram"


@dataclass(frozen=True)
class Folder:
    """A store of which only paths are asked."""

    folder: Path

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    """A store with a RAM image, and an older one that is like it."""
    noise = random.Random(1).randbytes(200_000)  # noqa: S311
    image = b"".join([b"QEVM", *(b"\0" * 6 + bytes([i << 4, 0x28]) + noise[i * 4096 :][:4096] for i in range(16))])
    for name in (OLDER, SAVED.memory):
        (tmp_path / name).write_bytes(image + bytes(6000))
    return cast(LayerStore, Folder(tmp_path))


def files(tmp_path: Path) -> set[str]:
    return {file.name for file in tmp_path.iterdir()}


def test_a_delta_takes_its_place_and_it_can_be_made_whole(store: LayerStore, tmp_path: Path) -> None:
    delta = ram_images.finalized(store, SAVED, OLDER)
    assert (delta.memory, delta.older) == ("w1.two.delta.ram", OLDER)
    assert delta.memories == {"w1.two.delta.ram", OLDER}
    assert (tmp_path / delta.memory).stat().st_size < 1000
    image = (tmp_path / SAVED.memory).read_bytes()
    back = ram_images.made_whole(store, delta)
    assert (tmp_path / back).read_bytes() == image
    assert b"".join(bytes(data) for _, data in ram_images.stretches(store, delta.memory, delta.older)) == image
    ram_images.drop_made(store, delta)
    ram_images.drop_made(store, delta)
    assert files(tmp_path) == {SAVED.memory, OLDER, delta.memory}


def test_a_whole_one_is_used_as_it_is(store: LayerStore, tmp_path: Path) -> None:
    assert ram_images.finalized(store, SAVED, "") == SAVED
    assert ram_images.made_whole(store, SAVED) == SAVED.memory
    ram_images.drop_made(store, SAVED)
    assert files(tmp_path) == {SAVED.memory, OLDER}


def test_one_that_has_changed_much_stays_whole(store: LayerStore, tmp_path: Path) -> None:
    (tmp_path / OLDER).write_bytes(b"QEVM" + bytes(range(256)) * 300)
    assert ram_images.finalized(store, SAVED, OLDER) == SAVED
    assert files(tmp_path) == {SAVED.memory, OLDER}


@pytest.mark.parametrize("content", [None, b""])
def test_without_a_usable_older_one_it_stays_whole(store: LayerStore, tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / OLDER).unlink()
    if content is not None:
        (tmp_path / OLDER).write_bytes(content)
    assert ram_images.finalized(store, SAVED, OLDER) == SAVED
    assert SAVED.memory in files(tmp_path)
    assert not any("delta" in name for name in files(tmp_path))


def test_a_full_disk_leaves_it_whole(store: LayerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_image: Path, _older: Path, delta: Path) -> None:
        delta.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ram_delta, "write", full)
    assert ram_images.finalized(store, SAVED, OLDER) == SAVED
    assert files(tmp_path) == {SAVED.memory, OLDER}


def test_a_damaged_delta_is_named(store: LayerStore, tmp_path: Path) -> None:
    delta = ram_images.finalized(store, SAVED, OLDER)
    (tmp_path / delta.memory).write_bytes(b"KLABRAM1")
    with pytest.raises(MachineError, match=r"w1\.two\.delta\.ram cannot be made whole") as caught:
        ram_images.made_whole(store, delta)
    assert "it ends too early" in caught.value.details
    with pytest.raises(MachineError, match=r"w1\.two\.delta\.ram has changed.*too early"):
        list(ram_images.stretches(store, delta.memory, delta.older))


def test_the_book_knows_what_builds_on_what(tmp_path: Path) -> None:
    book = CaptureIndex(tmp_path)
    for key, made, saved in (
        ("one", 1.0, {"w1": Saved("a", "w1.one.ram", "")}),
        ("two", 2.0, {"w1": Saved("a", "w1.two.delta.ram", "", older="w1.one.ram")}),
        ("off", 3.0, {"w1": Saved("a", "", "")}),
    ):
        book.write(Entry(key, made, saved))
    assert book.older("w1.two.delta.ram") == "w1.one.ram"
    assert book.older("w1.one.ram") == ""
    # A delta is never one of a delta.
    assert book.whole_before("three", "w1") == "w1.one.ram"
    assert book.whole_before("two", "w1") == "w1.one.ram"
    assert book.whole_before("three", "cp1") == ""
    book.remove(["two"])
    assert book.whole_before("one", "w1") == "", "not on itself"


class Refused(Exception):
    """What a reader raises that reads no pipes."""


def of(store: LayerStore, saved: Saved, tmp_path: Path) -> ram_images.Image:
    return ram_images.Image(store, saved, tmp_path / "pipe", Refused)


def with_head(tmp_path: Path) -> bytes:
    """Give the newer image what libvirt writes before the stream; returns all of it."""
    file = tmp_path / SAVED.memory
    file.write_bytes(
        struct.pack("=16sII", b"LibvirtQemudSave", 2, 9).ljust(92, b"\0") + b"<domain/>" + file.read_bytes()
    )
    return file.read_bytes()


@pytest.mark.parametrize("pipes", [True, False])
def test_a_delta_is_read_through_a_pipe_or_as_a_file_where_that_is_refused(
    store: LayerStore, tmp_path: Path, *, pipes: bool
) -> None:
    whole = with_head(tmp_path)
    delta = ram_images.finalized(store, SAVED, OLDER)
    kinds = []

    def read(path: str) -> bytes:
        kinds.append(Path(path).is_fifo())
        if kinds[-1] and not pipes:
            raise Refused
        return Path(path).read_bytes()

    image = of(store, delta, tmp_path)
    image.check()
    assert image.read(read) == whole
    assert image.read_head(read) == (whole[:101] if pipes else whole)
    if pipes:
        assert image.read(read, heads=2) == whole[:101] * 2 + whole
    assert kinds == ([True] * 3 if pipes else [True, False, True, False])
    ram_images.drop_made(store, delta)
    assert files(tmp_path) == {SAVED.memory, OLDER, delta.memory}


def test_a_whole_image_is_read_where_it_lies(store: LayerStore, tmp_path: Path) -> None:
    image = of(store, SAVED, tmp_path)
    assert image.read(str) == image.read_head(str) == f"{tmp_path}/{SAVED.memory}"


def test_a_damaged_delta_is_no_image(store: LayerStore, tmp_path: Path) -> None:
    with_head(tmp_path)
    delta = ram_images.finalized(store, SAVED, OLDER)
    (tmp_path / OLDER).write_bytes(b"")
    image = of(store, delta, tmp_path)
    with pytest.raises(MachineError, match="cannot be made whole"):
        image.check()
    with pytest.raises(MachineError, match="cannot be made whole"):
        image.read(lambda path: Path(path).read_bytes())
