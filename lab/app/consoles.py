"""What the nodes of a lab print on their serial consoles."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lab.cluster.lab import Lab
from lab.errors import NotFound, Remedy

FOLLOW_SECONDS = 0.3
# Of a console that a guest has filled no more is read than a person can want of it; bytes.
LINE = 4096
MOST_AT_ONCE = 16 << 20
BLOCK = 1 << 16


def console(lab: Lab, node: str, lines: int, *, follow: bool = False) -> Iterator[bytes]:
    """The last lines of a node's console, then, with `follow`, whatever comes, without end.

    Raises:
        NotFound: the node has printed nothing yet.
    """
    file = lab.machines().consoles()[node]
    try:
        yield from _read(file, lines, follow=follow)
    except FileNotFoundError:
        raise NotFound(f"{node} has printed nothing yet", hint=(Remedy("status"), " shows whether it runs")) from None


def last_lines(file: Path, count: int) -> str:
    """The end of a text file, however long it is.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        return _end(opened, count).decode("utf-8", "replace")


def _read(file: Path, lines: int, *, follow: bool) -> Iterator[bytes]:
    with file.open("rb") as opened:
        yield _end(opened, lines)
        while follow:
            time.sleep(FOLLOW_SECONDS)
            if os.fstat(opened.fileno()).st_size < opened.tell():
                opened.seek(0)  # a new console: the node was started again
            while more := opened.read(BLOCK):
                yield more


def _end(file: BinaryIO, count: int) -> bytes:
    """The last lines of a file, however long it is; the last one has an end, or is still being printed."""
    most = min(count * LINE, MOST_AT_ONCE)
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    lines = file.read(most).split(b"\n")
    return b"\n".join(lines[-count:] if lines[-1] else lines[-count - 1 :])
