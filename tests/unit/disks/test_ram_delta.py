"""RAM images as what distinguishes them from older ones: whatever the bytes, the same bytes come back."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.disks import ram_delta
from lab.disks.ram_delta import DamagedDeltaError
from lab.disks.ram_stream import PAGE

HEADER = b"LibvirtQemudSave" + b"<domain/>" * 50
DEVICES = b"\x04" + bytes(range(256)) * 8
END_OF_PART = struct.pack(">Q", 0x10) + b"\x7e\x00\x00\x00\x02" + b"\x02\x00\x00\x00\x02"


def stream(blocks: Mapping[str, list[bytes | None]], *, part: int = 1000) -> bytes:
    """A RAM image as QEMU writes it: by block its pages, None for zeros; a part ends after so many pages."""
    found = [HEADER, b"QEVM", struct.pack(">I", 3)]
    for name, pages in blocks.items():
        for number, page in enumerate(pages):
            first = number == 0
            flags = (0x02 if page is None else 0x08) | (0 if first else 0x20)
            found.append(struct.pack(">Q", number * PAGE | flags))
            found.append(bytes([len(name)]) + name.encode() if first else b"")
            found.append(b"\0" if page is None else page)
            found.append(END_OF_PART if number % part == part - 1 else b"")
    return b"".join([*found, END_OF_PART, DEVICES])


def pages(count: int, seed: int = 0) -> list[bytes | None]:
    dice = random.Random(seed)  # noqa: S311
    return [None if dice.random() < 0.3 else dice.randbytes(PAGE) for _ in range(count)]


@pytest.fixture
def delta(tmp_path: Path) -> Callable[[bytes, bytes], Path]:
    """Writes the delta of an image against an older one, and asserts that the image comes back from it."""

    def make(image: bytes, older: bytes) -> Path:
        new, old, file = tmp_path / "new", tmp_path / "old", tmp_path / "delta"
        new.write_bytes(image)
        old.write_bytes(older)
        ram_delta.write(new, old, file)
        ram_delta.restore(file, old, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == image
        found = [(at, bytes(block)) for at, block in ram_delta.stretches(file, old)]
        assert b"".join(data for _, data in found) == image
        assert [at for at, _ in found] == [sum(len(d) for _, d in found[:i]) for i in range(len(found))]
        return file

    return make


def test_what_has_not_changed_costs_next_to_nothing(delta: Callable[[bytes, bytes], Path]) -> None:
    image = stream({"pc.ram": pages(2000), "vga.vram": pages(50, seed=1)})
    assert delta(image, image).stat().st_size < 10_000


def test_changed_pages_cost_what_they_are(delta: Callable[[bytes, bytes], Path]) -> None:
    """Pages that have become zeros, or are none any more, move all that follows."""
    old, new = pages(2000), pages(2000)
    new[100:120] = pages(20, seed=2)
    new[300] = None
    new[1500] = b"x" * PAGE
    size = delta(stream({"pc.ram": new}, part=700), stream({"pc.ram": old}, part=300)).stat().st_size
    assert size < 30 * PAGE


def test_what_does_not_fit_into_one_group(
    delta: Callable[[bytes, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither more bytes nor more records than a group takes are lost, and where they are cut costs little."""
    old, new = pages(1500), pages(1500)
    new[200:600] = pages(400, seed=5)
    new[700::2] = pages(len(new[700::2]), seed=6)
    image, older = stream({"pc.ram": new}), stream({"pc.ram": old})
    size = delta(image, older).stat().st_size
    monkeypatch.setattr(ram_delta, "MOST", 3)
    monkeypatch.setattr(ram_delta, "CHUNK", 3 * PAGE + 1)
    assert size <= delta(image, older).stat().st_size < size * 1.1


def test_pages_of_one_block_are_not_those_of_another(delta: Callable[[bytes, bytes], Path]) -> None:
    a, b = pages(200, seed=3), pages(200, seed=4)
    assert delta(stream({"a": a, "b": b}), stream({"a": b, "b": a})).stat().st_size > 200 * PAGE


@pytest.mark.parametrize("image", [b"x", b"\0" * 100_000, HEADER, stream({"pc.ram": []}), bytes(range(1, 256)) * 1000])
@pytest.mark.parametrize("older", [b"y", stream({"pc.ram": pages(30)})])
def test_what_is_no_such_stream_is_kept_as_it_is(
    delta: Callable[[bytes, bytes], Path], image: bytes, older: bytes
) -> None:
    delta(image, older)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_two_images(delta: Callable[[bytes, bytes], Path], data: st.DataObject) -> None:
    def draw() -> bytes:
        kinds = st.one_of(st.none(), st.sampled_from([b"a" * PAGE, b"b" * PAGE, struct.pack(">Q", 0x28) * (PAGE // 8)]))
        blocks = data.draw(st.lists(st.lists(kinds, max_size=40), max_size=3))
        whole = stream({f"block{i}": pages for i, pages in enumerate(blocks)}, part=data.draw(st.integers(1, 50)))
        cut = data.draw(st.integers(1, len(whole)))
        return whole[:cut] if data.draw(st.booleans()) else whole

    delta(draw(), draw())


def test_it_is_nobody_elses_to_read(delta: Callable[[bytes, bytes], Path], tmp_path: Path) -> None:
    file = delta(b"secret", b"older")
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


def test_damage_is_seen(delta: Callable[[bytes, bytes], Path], tmp_path: Path) -> None:
    image = stream({"pc.ram": pages(300)})
    file = delta(image, stream({"pc.ram": pages(300)[:-40]}))
    good = file.read_bytes()

    def refused(damaged: bytes) -> None:
        file.write_bytes(damaged)
        with pytest.raises(DamagedDeltaError):
            list(ram_delta.stretches(file, tmp_path / "old"))
        with pytest.raises(DamagedDeltaError):
            ram_delta.check(file, tmp_path / "old")

    ram_delta.check(file, tmp_path / "old")
    for end in (0, 5, 16, 20, len(good) - 1):
        refused(good[:end])
    refused(b"x" + good[1:])
    refused(good[:7] + b"1" + good[8:])
    refused(good + b"x")
    for at in range(16, len(good), len(good) // 40):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            found = b"".join(bytes(data) for _, data in ram_delta.stretches(file, tmp_path / "old"))
        except DamagedDeltaError:
            continue
        finally:
            with contextlib.suppress(DamagedDeltaError):  # what it holds is not looked at
                ram_delta.check(file, tmp_path / "old")
        assert found != image, f"a changed byte at {at} is in the image, where its digest tells"
    file.write_bytes(good)
    older = tmp_path / "old"
    older.write_bytes(older.read_bytes()[: len(HEADER) + 9 * PAGE])
    with pytest.raises(DamagedDeltaError, match="shorter"):
        ram_delta.check(file, older)
    with pytest.raises(DamagedDeltaError, match="shorter"):
        list(ram_delta.stretches(file, older))


def test_what_is_packed_is_no_larger_than_it_says(tmp_path: Path) -> None:
    """A quarter of a megabyte may hold two hundred times as much."""
    packed = zlib.compress(bytes(50 << 20), 9)
    head = ram_delta._HEAD.pack(ram_delta.MAGIC, 1) + ram_delta._GROUP.pack(1, len(packed) + 1, len(packed))
    (tmp_path / "delta").write_bytes(head + ram_delta._RECORD.pack(ram_delta.LITERAL, 0, 1) + packed)
    (tmp_path / "older").write_bytes(b"x")
    tracemalloc.start()
    try:
        with pytest.raises(DamagedDeltaError, match="it is damaged"):
            list(ram_delta.stretches(tmp_path / "delta", tmp_path / "older"))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_a_packed_part_that_was_cut_off(cut: int) -> None:
    packed = zlib.compress(bytes(range(256)) * 64)
    assert ram_delta._unpacked(packed, 256 * 64) == bytes(range(256)) * 64
    with pytest.raises(ram_delta.DamagedDeltaError):
        ram_delta._unpacked(packed[:-cut], 256 * 64)
