"""Digests of the files of snapshots: RAM and disks, gigabytes of them, several in parallel.

XXH3 (xxhash.com) detects changed bytes as fast as the files are read. It does not detect changes
made on purpose.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence

import xxhash

from lab.errors import LabError
from lab.machines.captures import Part, PartKind
from lab.machines.protocol import Machines
from lab.snapshots.check import digest_problems, matched, part_problems, unchanged
from lab.snapshots.manifest import Manifest
from lab.waiting import map_parallel

BLOCK = 1 << 20
WORKERS = 4
TAIL = 1 << 12  # where zeros are looked for at once
_HEAD = struct.Struct("<QI")


def digest(stretches: Iterable[tuple[int, bytes | memoryview]]) -> str:
    """The digest of a file's content, as `Captures.content` yields it.

    Zeros count only towards the length, so that the digest does not depend on which of them the
    file system keeps as holes.
    """
    found = xxhash.xxh3_128()
    for at, data in _blocks(stretches):
        found.update(_HEAD.pack(at, len(data)))
        found.update(data)
    return found.hexdigest()


def _blocks(stretches: Iterable[tuple[int, bytes | memoryview]]) -> Iterator[tuple[int, bytes | memoryview]]:
    """The same content in pieces that begin at multiples of BLOCK, without zeros at their ends; last the length."""
    length, begun, piece = 0, 0, bytearray()
    for start, data in stretches:
        length, end = max(length, start + len(data)), start + len(data)
        at = start
        while at < end:
            begin = at - at % BLOCK
            until = min(begin + BLOCK, end)
            if piece and begin != begun:
                yield from _trimmed(begun, piece)
                piece = bytearray()
            part = memoryview(data)[at - start : until - start]
            if len(part) == BLOCK:  # nothing has to be put together
                yield from _trimmed(begin, part)
            else:
                # What lies before it in the same piece is a hole.
                piece += bytes(at - begin - len(piece))
                piece += part
            begun, at = begin, until
    yield from _trimmed(begun, piece)
    yield length, b""


def _trimmed(at: int, piece: bytearray | memoryview) -> Iterator[tuple[int, bytes | memoryview]]:
    length = len(piece)
    while length:
        tail = len(bytes(piece[max(0, length - TAIL) : length]).rstrip(b"\0"))
        length = max(0, length - TAIL) + tail
        if tail:
            yield at, memoryview(piece)[:length]
            return


def digests(machines: Machines, parts: Sequence[Part]) -> dict[str, str]:
    """By name the digest of each of these files, several at once.

    Raises:
        MachineError: one cannot be read.
    """
    unique = {part.name: part for part in parts}
    return map_parallel(
        lambda name: digest(machines.captures().content(unique[name])), list(unique), most=WORKERS, give_up=True
    )


def file_problems(machines: Machines, manifest: Manifest, kinds: Collection[PartKind] = tuple(PartKind)) -> list[str]:
    """How a snapshot's files differ from its manifest, one line each; [] when they do not.

    All must be there; those of these kinds are read, but for what is slow to read and unchanged by its stamp.
    """
    names = {node.name for node in manifest.nodes}
    try:
        parts = [part for part in machines.captures().parts(manifest.id) if part.node in names]
        if problems := part_problems(manifest, parts):
            return problems
        same = unchanged(manifest, parts)
        found = digests(machines, [part for part in parts if part.kind in kinds and part.name not in same])
    except LabError as error:
        return [error.message, *error.details]
    return digest_problems(matched(manifest, parts), found)
