from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.desk import Desk
from support.fake_lab import opener

from lab.disks.images import stretches
from lab.errors import MachineError
from lab.machines.captures import Part
from lab.machines.fake.captures import FakeCaptures
from lab.snapshots import digest as module
from lab.snapshots.digest import digest, digests


def cut(content: bytes, places: list[int], *, zeros: bool) -> Iterator[tuple[int, bytes]]:
    """A content in stretches that begin at these places; with `zeros` those of zeros alone are left out as holes."""
    edges = sorted({0, len(content), *(p % (len(content) + 1) for p in places)})
    for start, end in itertools.pairwise(edges):
        if not zeros or any(content[start:end]):
            yield start, content[start:end]
    yield len(content), b""


CONTENTS = st.lists(st.sampled_from([b"a", b"bc", bytes(5), bytes(17), bytes(64)]), max_size=40).map(b"".join)


@given(CONTENTS, st.lists(st.integers(0, 2000)), st.lists(st.integers(0, 2000)))
def test_one_content_has_one_digest_however_it_is_read(content: bytes, one: list[int], other: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", 16)
        assert digest(cut(content, one, zeros=False)) == digest(cut(content, other, zeros=True))


@given(CONTENTS.filter(bool), st.integers(0, 10_000), st.integers(1, 255))
def test_another_byte_or_length_has_another_digest(content: bytes, at: int, flip: int) -> None:
    changed = bytearray(content)
    changed[at % len(content)] ^= flip
    found = digest(cut(content, [], zeros=True))
    assert digest(cut(bytes(changed), [], zeros=True)) != found
    assert digest(cut(content + b"\0", [], zeros=True)) != found


def test_a_hole_counts_as_zeros(tmp_path: Path) -> None:
    dense, sparse = tmp_path / "dense", tmp_path / "sparse"
    dense.write_bytes(b"x" + bytes(3 << 20) + b"y")
    with sparse.open("wb") as out:
        out.write(b"x")
        out.seek((3 << 20) + 1)
        out.write(b"y")
    assert digest(stretches(dense)) == digest(stretches(sparse))


def test_several_files_at_once_each_once(desk: Desk) -> None:
    desk.machines.captures().suspend(["cp1", "w1"])
    desk.machines.captures().capture("one", ["cp1", "w1"], print)
    parts = desk.machines.captures().parts("one")
    read: list[str] = []

    def noted(self: FakeCaptures, part: Part) -> Iterator[tuple[int, bytes]]:
        read.append(part.name)
        return FakeCaptures.content(self, part)

    lab = desk.of(open_machines=opener(content=noted))
    found = digests(lab.machines(lab.folder.record()), [*parts, *parts])
    assert sorted(found) == sorted(read) == sorted(part.name for part in parts)
    (desk.lab.folder.path / "fake" / "captures" / parts[0].name).unlink()
    with pytest.raises((MachineError, OSError)):
        digests(desk.machines, parts)
