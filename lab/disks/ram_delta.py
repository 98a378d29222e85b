"""A RAM image as what distinguishes it from an older one of the same machine: most pages are the same.

A RAM image is a stream in which the guest's pages are in the order of their addresses, each behind
eight bytes of header; a page of zeros takes one byte. So equal pages are found by their addresses
(`lab.disks.ram_stream`); what is not found is kept as it is.

    head       MAGIC, length of the image
    group      how many records, how many bytes its literals have, how many are stored; then both
      record     COPY, from where in the older image, how many bytes
      record     LITERAL, from where in the group's literals, how many bytes
      literals   packed by zlib where fewer are stored than there are
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lab.disks.images import BLOCK, Extent, Piece
from lab.disks.ram_stream import PAGE, common

MAGIC = b"KLABRAM2"
FAMILY = MAGIC[:-1]
COPY, LITERAL = 0, 1
_HEAD = struct.Struct("<8sQ")
_GROUP = struct.Struct("<III")
_RECORD = struct.Struct("<BQQ")
CHUNK = 1 << 18  # bytes of literals in a group, at most
MOST = 1 << 14  # records in a group, at most
FAST = 1  # zlib's level
WORTH = 0.9  # what is hardly smaller when packed stays as it is


class DamagedDeltaError(ValueError):
    """A delta cannot be read."""


def write(image: Path, older: Path, delta: Path) -> None:
    """Write what distinguishes an image from an older one, and wait until it is on disk.

    Raises:
        OSError: one cannot be read, or the disk does not take it.
        ValueError: one is empty.
    """
    with _mapped(image) as new, _mapped(older) as old, delta.open("wb", buffering=BLOCK) as out:
        delta.chmod(0o600)
        out.write(_HEAD.pack(MAGIC, len(new)))
        group, at = _Group(out), 0
        for start, source, length in common(new, old):
            group.literal(new, at, start)
            group.copy(source, length)
            at = start + length
        group.literal(new, at, len(new))
        group.write()
        out.flush()
        os.fsync(out.fileno())


def stretches(delta: Path, older: Path) -> Iterator[tuple[int, bytes | memoryview]]:
    """The bytes of the image with their offsets, in order; last its length, with no bytes; as `images.stretches`.

    Raises:
        DamagedDeltaError: the delta is damaged, or does not fit the older image.
        OSError: one cannot be read.
    """
    buffer, at, filled = memoryview(bytearray(BLOCK)), 0, 0
    for piece in pieces(delta, older):
        done, length = 0, piece.length if isinstance(piece, Extent) else len(piece)
        while done < length:
            room = buffer[filled : filled + length - done]
            count = _fill(room, piece, done)
            done, filled = done + count, filled + count
            if filled == BLOCK:
                yield at, buffer
                at, filled = at + BLOCK, 0
    if filled:
        yield at, buffer[:filled]
    yield at + filled, b""


def _fill(room: memoryview, piece: Piece, done: int) -> int:
    """Put as many bytes of a piece as there is room for, from `done` on; returns how many."""
    if isinstance(piece, Extent):
        count = os.preadv(piece.handle, [room], piece.start + done)
        if not count:
            raise DamagedDeltaError("the image that it builds on is shorter than it was")
        return count
    room[:] = piece[done : done + len(room)]
    return len(room)


def pieces(delta: Path, older: Path) -> Iterator[Piece]:
    """The bytes of the image in order, and where those are that the older one has; see `stretches`.

    Each must be used before the next is asked for.
    """
    with delta.open("rb") as source, older.open("rb", buffering=0) as base:
        handle = base.fileno()
        for records, length, stored in _groups(source, os.fstat(handle).st_size):
            literals = memoryview(_unpacked(source.read(stored), length))
            for kind, start, count in records:
                yield Extent(handle, start, count) if kind == COPY else literals[start : start + count]


def check(delta: Path, older: Path) -> None:
    """Make sure that a delta is whole and fits the older image, whatever it holds; errors as `stretches`."""
    with delta.open("rb") as source:
        for _, _, stored in _groups(source, older.stat().st_size):
            source.seek(stored, os.SEEK_CUR)


def _groups(source: BinaryIO, older: int) -> Iterator[tuple[list[tuple[int, int, int]], int, int]]:
    """The groups of a delta of an image that is `older` bytes long: records, bytes of literals, how many are stored.

    The reader of this passes what is stored, before it asks for the next.
    """
    magic, length = _unpack(_HEAD, source.read(_HEAD.size))
    if magic != MAGIC:
        other = magic.startswith(FAMILY)
        raise DamagedDeltaError("another version of klab wrote it" if other else "klab did not write it as a RAM image")
    at = 0
    while at < length:
        count, whole, stored = _unpack(_GROUP, source.read(_GROUP.size))
        if not 0 < count <= MOST or not stored <= whole <= CHUNK:
            raise DamagedDeltaError("it is damaged")
        packed = source.read(count * _RECORD.size)
        if len(packed) < count * _RECORD.size:
            raise DamagedDeltaError("it ends too early")
        records = list(_RECORD.iter_unpack(packed))
        for kind, start, size in records:
            if kind == COPY and start + size > older:
                raise DamagedDeltaError("the image that it builds on is shorter than it was")
            if kind not in {COPY, LITERAL} or not size or (kind == LITERAL and start + size > whole):
                raise DamagedDeltaError("it is damaged")
            at += size
        yield records, whole, stored
    if at != length or source.tell() != os.fstat(source.fileno()).st_size:
        raise DamagedDeltaError("its length is not the one in its header")


def restore(delta: Path, older: Path, image: Path) -> None:
    """Write the image.

    Raises:
        DamagedDeltaError: as `stretches`.
        OSError: one cannot be read, or the disk does not take it.
    """
    with image.open("wb") as out:
        image.chmod(0o600)
        for _, block in stretches(delta, older):
            out.write(block)


class _Group:
    """Records on their way to a delta. Many small literals are packed as one, which takes half the time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._records: list[bytes] = []
        self._literals = bytearray()

    def copy(self, source: int, length: int) -> None:
        self._add(COPY, source, length)

    def literal(self, image: mmap.mmap, start: int, end: int) -> None:
        while start < end:
            until = min(end, start + CHUNK - len(self._literals))
            self._literals += image[start:until]
            self._add(LITERAL, len(self._literals) - (until - start), until - start)
            start = until

    def _add(self, kind: int, start: int, length: int) -> None:
        self._records.append(_RECORD.pack(kind, start, length))
        if len(self._records) == MOST or len(self._literals) == CHUNK:
            self.write()

    def write(self) -> None:
        if self._records:
            stored = _packed(self._literals)
            self._out.write(_GROUP.pack(len(self._records), len(self._literals), len(stored)))
            self._out.writelines([*self._records, stored])
        self._records, self._literals = [], bytearray()


def _packed(data: bytearray) -> bytes | bytearray:
    sample = data[:PAGE]  # tells whether it is worth the time
    if len(zlib.compress(sample, FAST)) < len(sample) * WORTH:
        packed = zlib.compress(data, FAST)
        return packed if len(packed) < len(data) else data
    return data


def _unpacked(stored: bytes, length: int) -> bytes:
    data = stored
    if len(stored) < length:
        unpacker = zlib.decompressobj()
        try:
            # What is packed may be a thousand times as long: never unpack more than its header gives.
            data = unpacker.decompress(stored, length + 1)
        except zlib.error as error:
            raise DamagedDeltaError(str(error)) from error
        if not unpacker.eof:
            raise DamagedDeltaError("it is damaged")  # cut off, or longer than its header gives
    if len(data) != length:
        raise DamagedDeltaError("it is damaged")
    return data


def _unpack(shape: struct.Struct, data: bytes) -> tuple[Any, ...]:
    try:
        return shape.unpack(data)
    except struct.error as error:
        raise DamagedDeltaError("it ends too early") from error


@contextlib.contextmanager
def _mapped(file: Path) -> Iterator[mmap.mmap]:
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as found:
        yield found
