"""A console's file while it grows: read from where it was left, also when another takes its place.

klab begins a new file before each start of a machine. virtlogd renames one that is full (libvirt's, virtlogd.conf:
max_size, 2 MiB) and makes another: FILE.0 holds what was printed before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 16
_ROTATED = ".0"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a console. `fresh`: they begin a new file, nothing before them is of this run of the machine."""

    data: bytes
    fresh: bool


class ConsoleFile:
    """One console's file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._fresh = False

    def read(self, most: int) -> Iterator[Piece]:
        """What is new, but no more than `most` bytes of it; the rest comes the next time.

        Raises:
            OSError: there is no file, or klab may not read it.
        """
        file = self._file if self._file is not None else self._begin(fresh=True)
        while True:
            # Looked at before the file is read to its end: one that has been renamed by now is complete.
            latest = self._path.stat()
            mine = os.fstat(file)
            if os.lseek(file, 0, os.SEEK_CUR) > mine.st_size:  # emptied where it is
                os.lseek(file, 0, os.SEEK_SET)
                self._fresh = True
            while most > 0 and (data := os.read(file, min(BLOCK, most))):
                most -= len(data)
                piece, self._fresh = Piece(data, self._fresh), False
                yield piece
            if most <= 0 or os.path.samestat(latest, mine):
                return
            # A file that was renamed still has a name, and the latest continues it.
            file = self._begin(fresh=os.fstat(file).st_nlink == 0)

    def end(self) -> int:
        """Pass over what is in it so far; returns how many bytes that is. Raises OSError as `read`."""
        file = self._file if self._file is not None else self._begin(fresh=True)
        return os.lseek(file, 0, os.SEEK_END)

    def _begin(self, *, fresh: bool) -> int:
        file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self.close()
        self._file, self._fresh = file, fresh
        return file

    def close(self) -> None:
        """Read no more of it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


def rotated(path: Path) -> Path:
    """Where virtlogd keeps what was printed before the file was full."""
    return path.with_name(path.name + _ROTATED)
