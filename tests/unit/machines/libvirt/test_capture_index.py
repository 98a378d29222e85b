from __future__ import annotations

from pathlib import Path

import pytest

from lab.disks.layers import Merge
from lab.errors import MachineError, NotFound
from lab.machines.libvirt.capture_index import CaptureIndex, Entry, Saved

ENTRY = Entry("one", 1.5, {"cp1": Saved("a.img", "a.one.ram", "<domain/>", "demo-cp1 ssh-ed25519 AAAA\n")})


@pytest.fixture
def book(tmp_path: Path) -> CaptureIndex:
    return CaptureIndex(tmp_path / "captures")


def test_entries_are_read_back_oldest_first(book: CaptureIndex) -> None:
    assert book.readable() == ([], True)
    book.write(Entry("two", 2.5, ENTRY.nodes))
    book.write(ENTRY)
    assert book.entry("one") == ENTRY
    entries, whole = book.readable()
    assert ([entry.key for entry in entries], whole) == (["one", "two"], True)
    book.remove(["one", "none"])
    assert book.keys() == ["two"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"made": 1, "nodes": {"cp1": {}}}', '{"made": "x", "nodes": {}}'])
def test_a_damaged_entry_is_no_other_ones(book: CaptureIndex, tmp_path: Path, text: str) -> None:
    book.write(ENTRY)
    (tmp_path / "captures" / "two.json").write_text(text)
    with pytest.raises(MachineError, match="damaged") as caught:
        book.entry("two")
    assert "klab snapshot rm two" in caught.value.hint
    assert book.readable() == ([ENTRY], False)
    assert book.keys() == ["one", "two"]


def test_an_entry_that_is_not_there(book: CaptureIndex) -> None:
    with pytest.raises(NotFound):
        book.entry("one")


def test_a_layer_gets_another_name_wherever_it_stands(book: CaptureIndex) -> None:
    book.write(ENTRY)
    book.move("b.img", "c.img")
    assert book.entry("one") == ENTRY
    book.move("a.img", "c.img")
    assert book.entry("one").nodes["cp1"].disk == "c.img"


def test_a_merge_is_written_down_until_it_is_done(book: CaptureIndex) -> None:
    assert book.merging is None
    book.note_merging(Merge("a", ("b", "c")))
    assert book.merging == Merge("a", ("b", "c"))
    assert book.keys() == [], "the note is no entry"
    book.note_merging(None)
    book.note_merging(None)
    assert book.merging is None
