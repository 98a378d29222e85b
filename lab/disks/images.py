"""Disk images and RAM images as files: read with their holes, and what qemu-img does to them.

Source of the format: QEMU, docs/interop/qcow2.rst.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from lab import process
from lab.disks.qcow2 import MAGIC

BLOCK = 1 << 20
# Of the header: where the name of the backing file is, and how long it is.
_BACKING = struct.Struct(">QI")
_BACKING_AT = 8
_CLUSTER_BITS_AT = 20
MERGE_SECONDS = 1800.0
QUICK_SECONDS = 60.0


class Extent(NamedTuple):
    """Some bytes of a file that is open: `length` of them from `start` on."""

    handle: int
    start: int
    length: int


# Some bytes, or where they are.
Piece: TypeAlias = bytes | memoryview | Extent


def stretches(file: Path) -> Iterator[tuple[int, bytes | memoryview]]:
    """The bytes of a file with their offsets, holes left out; last its length, with no bytes.

    Each is there until the next is asked for, and ends where a multiple of BLOCK does at the latest.
    Where a qcow2 image's header names the backing file, zeros replace that name: it may change
    while the content stays.
    """
    buffer = memoryview(bytearray(BLOCK))
    with file.open("rb", buffering=0) as handle:
        length = os.fstat(handle.fileno()).st_size
        for start, end in _data(handle.fileno(), length):
            while start < end:
                count = os.preadv(handle.fileno(), [buffer[: min(BLOCK - start % BLOCK, end - start)]], start)
                if not count:
                    break  # it has become shorter under our hands; its length tells
                yield start, buffer[:count] if start else anonymous(bytes(buffer[:count]))
                start += count
    yield length, b""


def write(content: Iterable[tuple[int, bytes | memoryview]], file: Path) -> None:
    """Write to a new file what `stretches` yields."""
    with file.open("wb") as out:
        for at, block in content:
            if block:
                out.seek(at)
                out.write(block)
            else:
                out.truncate(at)


def _data(handle: int, length: int) -> Iterator[tuple[int, int]]:
    """Where a file has data; see lseek(2), SEEK_DATA."""
    at = 0
    while at < length:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        at = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, at


def anonymous(block: bytes) -> bytes:
    """The first block of a file; of a qcow2 image without the name of the file below."""
    if not block.startswith(MAGIC) or len(block) < _CLUSTER_BITS_AT + 4:
        return block
    at, size = _BACKING.unpack_from(block, _BACKING_AT)
    found = bytearray(block)
    found[_BACKING_AT : _BACKING_AT + _BACKING.size] = bytes(_BACKING.size)
    # A damaged header may name a place that is none.
    if at > 0 and at + size <= len(found):
        found[at : at + size] = bytes(size)
    return bytes(found)


def to_disk(file: Path) -> None:
    """Wait until what was written to a file is on disk."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def commit(into: Path, top: Path) -> None:
    """Write the content of `top`, and of what lies between, into `into`; the others stay as they are. Idempotent.

    Raises:
        ProgramError, ProgramTimeout: qemu-img fails; what lies on `top` reads as before.
    """
    process.run(["qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", into, top], timeout=MERGE_SECONDS)


def lay_on(image: Path, below: Path) -> None:
    """Let an image lie on another file that has the same content as the one it lies on now.

    Raises:
        ProgramError, ProgramTimeout: qemu-img fails.
    """
    below_it = ["-F", "qcow2", "-b", str(below)]
    process.run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", *below_it, image], timeout=QUICK_SECONDS)
