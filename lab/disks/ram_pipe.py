"""A RAM image that lies nowhere whole, for libvirt to read: through a named pipe, while it is put together.

libvirt is given a path and reads what is there from front to end, so it may be a pipe: that neither
waits for a disk nor needs room on one. Before QEMU's stream is what libvirt itself reads:

    header      magic, version, how many bytes follow before the stream; 92 bytes in all
    definition  of the machine, and a cookie

From 11.2 on libvirt opens the file once for these alone, and once more for all of it. The bytes of
both parts are in the pipe one behind the other: what was not read stays while its writer has it open.

Source: libvirt, src/qemu/qemu_saveimage.h (_virQEMUSaveHeader) and qemu_saveimage.c; pipe(7), fifo(7).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.disks.images import Extent, Piece
from lab.waiting import background

_HEADER = struct.Struct("=16sII")
_HEADER_BYTES = 92
MOST_DEFINITION = 16 << 20  # bytes; a machine's has some thousand
CAPACITY = 1 << 20  # bytes in the pipe at most; what any user may ask for
LOOK_SECONDS = 0.005  # between two looks for a reader
ROOM_MILLISECONDS = 100


def head(image: Iterable[bytes | memoryview]) -> bytes:
    """The beginning of a RAM image: what is in it before QEMU's stream.

    Raises:
        ValueError: it ends before that, or is not a RAM image.
    """
    found, wanted = b"", _HEADER_BYTES
    for block in image:
        found += block
        if len(found) >= _HEADER_BYTES:
            _, _, length = _HEADER.unpack_from(found)
            if length > MOST_DEFINITION:
                raise ValueError(f"a RAM image has a definition of {length} bytes")
            wanted = _HEADER_BYTES + length
            if len(found) >= wanted:
                return found[:wanted]
    raise ValueError(f"a RAM image ends after {len(found)} of {wanted} bytes")


@contextlib.contextmanager
def fed(pipe: Path, pieces: Iterable[Piece]) -> Iterator[str]:
    """A path from which these bytes can be read, once, by a program that opens it meanwhile, in one go or in several.

    Args:
        pipe: where the path may lead; what is there is replaced, and nothing is there afterwards.
        pieces: the bytes, or where they are; asked for in another thread as they are needed.

    Raises:
        OSError: there can be no pipe.
        Exception: whatever the pieces raise; to the reader they have ended.
    """
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    over = threading.Event()
    with background(_feed, pipe, pieces, over) as feeding:
        try:
            yield str(pipe)
        except BaseException as error:
            over.set()
            if (cause := feeding.exception()) is not None:
                raise cause from error
            raise
        finally:
            over.set()
            pipe.unlink(missing_ok=True)
        feeding.result()


def _feed(pipe: Path, pieces: Iterable[Piece], over: threading.Event) -> None:
    handle = _opened(pipe, over)
    if handle is None:
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, CAPACITY)
        for piece in pieces:
            at, end = 0, piece.length if isinstance(piece, Extent) else len(piece)
            while at < end and not over.is_set():
                at += _put(handle, piece, at)
            if over.is_set():
                return
        # Closed sooner it would lose unread bytes, if no reader has it open at this moment.
        while not over.is_set() and _unread(handle):
            time.sleep(LOOK_SECONDS)
    finally:
        os.close(handle)


def _opened(pipe: Path, over: threading.Event) -> int | None:
    """The end that is written to, once a reader has opened the other; None when none has."""
    while not over.is_set():
        with contextlib.suppress(OSError):  # ENXIO: no reader yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(LOOK_SECONDS)
    return None


def _put(handle: int, piece: Piece, at: int) -> int:
    """How many bytes of a piece from `at` on found room; waits for a moment where there is none."""
    try:
        if isinstance(piece, Extent):
            moved = os.splice(piece.handle, handle, piece.length - at, offset_src=piece.start + at)
            if moved == 0:
                raise ValueError("a file has become shorter while it was read")
            return moved
        return os.write(handle, memoryview(piece)[at:])
    except BlockingIOError:
        room = select.poll()
        room.register(handle, select.POLLOUT)
        room.poll(ROOM_MILLISECONDS)
    except BrokenPipeError:  # no reader has it open at this moment
        time.sleep(LOOK_SECONDS)
    return 0


def _unread(handle: int) -> int:
    """How many bytes are in a pipe."""
    count = bytearray(4)
    fcntl.ioctl(handle, termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)
