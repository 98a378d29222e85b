from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
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
from lab.snapshots import manifest as manifests
from lab.snapshots.commands import take
from lab.snapshots.digest import digest, digests, file_problems


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
    with pytest.raises(MachineError, match="cannot be read"):
        digests(desk.machines, parts)


def test_a_file_that_is_slow_to_read_is_read_once_until_its_stamp_changes(desk: Desk) -> None:
    """Those that klab reads by itself have no stamp: they are read each time."""
    read: list[str] = []
    stamps = {"cp1": "1:2:3", "w1": ""}

    def stamped(self: FakeCaptures, key: str) -> list[Part]:
        return [replace(part, stamp=stamps[part.node]) for part in FakeCaptures.parts(self, key)]

    def noted(self: FakeCaptures, part: Part) -> Iterator[tuple[int, bytes]]:
        read.append(part.node)
        return FakeCaptures.content(self, part)

    lab = desk.of(open_machines=opener(parts=stamped, content=noted))
    manifest = take(lab, "one").manifest
    machines = lab.machines(lab.folder.record())
    assert manifest == manifests.from_json(manifests.to_json(manifest))
    read.clear()
    assert file_problems(machines, manifest) == []
    assert set(read) == {"w1"}
    file = desk.lab.folder.path / "fake" / "captures" / machines.captures().parts(manifest.id)[0].name
    good = file.read_bytes()
    file.write_bytes(good + b"changed")
    assert file_problems(machines, manifest) == [], "trusted by its stamp"
    stamps["cp1"] = "1:9:4"
    (line,) = file_problems(machines, manifest)
    assert "has changed" in line
    file.write_bytes(good)
    stamps["cp1"] = ""
    assert file_problems(machines, manifest) == []


def test_a_manifest_of_an_older_klab_has_no_stamps(desk: Desk) -> None:
    manifest = take(desk.lab, "one").manifest
    text = manifests.to_json(manifest)
    older = json.loads(text)
    for node in older["nodes"]:
        for part in node["parts"]:
            del part["stamp"]
    assert manifests.from_json(json.dumps(older)) == manifest
