"""A RAM image as what distinguishes it from an older one of the same machine: most pages are the same.

A RAM image is a stream in which the guest's pages stand in the order of their addresses, each behind
eight bytes of header; a page of zeros takes one byte. So equal pages are found by their addresses.
Nothing depends on that: what is not recognised is kept as it is, and what is taken for equal has been
compared.

    head       MAGIC, length of the image
    record     COPY, from where in the older image, how many bytes
    record     LITERAL or PACKED (by zlib), how many bytes, how many are stored; then these

Source of the stream's format: QEMU, migration/ram.c (RAM_SAVE_FLAG_*), docs/devel/migration/main.rst.
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

from lab.machines.images import BLOCK, Extent

MAGIC = b"KLABRAM1"
COPY, LITERAL, PACKED = 0, 1, 2
_HEAD = struct.Struct("<8sQ")
_RECORD = struct.Struct("<BQQ")
CHUNK = 1 << 18  # bytes of a literal, at most
FAST = 1  # zlib's level
WORTH = 0.9  # what is hardly smaller when packed stays as it is

PAGE = 4096
STREAM = b"QEVM"  # the stream's own magic; libvirt's header and the machine's definition stand before it
# A page's header is its address with these flags in the lower bits; without CONTINUE its block's name follows.
_HEADER = struct.Struct(">Q")
_ZERO, _PAGE, _CONTINUE, _FLAGS = 0x02, 0x08, 0x20, 0xFFF
_KINDS = frozenset((_ZERO, _PAGE))
_HIGHEST = 1 << 40  # no guest has a terabyte
_LONGEST_NAME = 256


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
        at = 0
        for start, source, length in _copies(new, old):
            _write_literal(out, new, at, start)
            out.write(_RECORD.pack(COPY, source, length))
            at = start + length
        _write_literal(out, new, at, len(new))
        out.flush()
        os.fsync(out.fileno())


def stretches(delta: Path, older: Path) -> Iterator[tuple[int, bytes | memoryview]]:
    """The bytes of the image with their offsets, in order; last its length, with no bytes; as `images.stretches`.

    Raises:
        DamagedDeltaError: the delta is none, or does not fit the older image.
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


def _fill(room: memoryview, piece: bytes | Extent, done: int) -> int:
    """Put as many bytes of a piece as there is room for, from `done` on; returns how many."""
    if isinstance(piece, Extent):
        count = os.preadv(piece.handle, [room], piece.start + done)
        if not count:
            raise DamagedDeltaError("the image that it builds on is shorter than it was")
        return count
    room[:] = piece[done : done + len(room)]
    return len(room)


def pieces(delta: Path, older: Path) -> Iterator[bytes | Extent]:
    """The bytes of the image in order, and where those are that the older one has; see `stretches`.

    Each must be used before the next is asked for.
    """
    with delta.open("rb") as source, older.open("rb", buffering=0) as base:
        for kind, first, second in _records(source, os.fstat(base.fileno()).st_size):
            yield Extent(base.fileno(), first, second) if kind == COPY else _literal(source, kind, first, second)


def check(delta: Path, older: Path) -> None:
    """Make sure that a delta is whole and fits the older image, whatever it holds; errors as `stretches`."""
    with delta.open("rb") as source:
        for kind, _, stored in _records(source, older.stat().st_size):
            if kind != COPY:
                source.seek(stored, os.SEEK_CUR)


def _records(source: BinaryIO, older: int) -> Iterator[tuple[int, int, int]]:
    """The records of a delta of an image that is `older` bytes long; what a literal holds is passed by its reader."""
    magic, length = _unpack(_HEAD, source.read(_HEAD.size))
    if magic != MAGIC:
        raise DamagedDeltaError("it is no RAM image")
    at = 0
    while at < length:
        kind, first, second = _unpack(_RECORD, source.read(_RECORD.size))
        if kind == COPY:
            if first + second > older:
                raise DamagedDeltaError("the image that it builds on is shorter than it was")
        elif kind not in {LITERAL, PACKED} or not 0 < second <= first <= CHUNK:
            raise DamagedDeltaError("it is damaged")
        yield kind, first, second
        at += second if kind == COPY else first
    if at != length or source.tell() != os.fstat(source.fileno()).st_size:
        raise DamagedDeltaError("it is not as long as it says")


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


def _copies(new: mmap.mmap, old: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Where the images are equal: offset in the new one, offset in the old one, length; in order, none overlapping."""
    known = dict(_pages(old))
    start = source = length = 0
    for key, at in _pages(new):
        there = known.get(key)
        if there is None or new[at : at + PAGE] != old[there : there + PAGE]:
            continue
        # Pages in a row are one copy, with the headers between them.
        gap = at - start - length
        follows = length and gap <= PAGE and gap == there - source - length
        if follows and new[at - gap : at] == old[there - gap : there]:
            length += gap + PAGE
            continue
        if length:
            yield start, source, length
        start, source, length = at, there, PAGE
    if length:
        yield start, source, length


def _pages(image: mmap.mmap) -> Iterator[tuple[int, int]]:
    """The pages of a stream that are not zeros: what each is known by, and its offset."""
    unpack, end = _HEADER.unpack_from, len(image) - _HEADER.size - _LONGEST_NAME - PAGE
    at, block = max(0, image.find(STREAM)), 0
    while at < end:
        (header,) = unpack(image, at)
        flags = header & _FLAGS
        if header >= _HIGHEST or flags & ~_CONTINUE not in _KINDS:
            at += 1  # something between the pages
            continue
        at += _HEADER.size
        if not flags & _CONTINUE:
            at += 1 + image[at]
            block += _HIGHEST
        if flags & _PAGE:
            yield block + header, at
            at += PAGE
        else:
            at += 1


def _write_literal(out: BinaryIO, new: mmap.mmap, start: int, end: int) -> None:
    for at in range(start, end, CHUNK):
        data = new[at : min(at + CHUNK, end)]
        # The first page tells whether it is worth the time.
        sample = data[:PAGE]
        packed = zlib.compress(data, FAST) if len(zlib.compress(sample, FAST)) < len(sample) * WORTH else data
        if len(packed) < len(data):
            out.write(_RECORD.pack(PACKED, len(data), len(packed)) + packed)
        else:
            out.write(_RECORD.pack(LITERAL, len(data), len(data)) + data)


def _literal(source: BinaryIO, kind: int, length: int, stored: int) -> bytes:
    data = source.read(stored)
    if kind == PACKED:
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise DamagedDeltaError(str(error)) from error
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
