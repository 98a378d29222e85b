"""What the nodes of a lab print on their serial consoles."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.cluster.lab import Lab
from lab.cluster.wait.console_file import ConsoleFile, rotated
from lab.errors import HostError, NotFound, Remedy

FOLLOW_SECONDS = 0.3
# Of a console that a guest has filled no more is read than a person can want of it; bytes.
LINE = 4096
MOST_AT_ONCE = 16 << 20
# What the kernel and systemd write before a line: seconds since the machine was switched on.
_SECONDS = re.compile(rb"(?:\x1b\[[0-9;]{0,20}m)?\[ {0,6}(\d{1,9})\.\d{1,6}\]")
# Lines of several processors come a little out of order; no machine boots in less.
_STEP_BACK = 3


def console(
    lab: Lab, node: str, lines: int, *, boots: bool = False, follow: bool = False, note: Callable[[str], None]
) -> Iterator[bytes]:
    """The last lines of a node's console, then, with `follow`, whatever comes, without end.

    Args:
        lab: the lab.
        node: the name of one of its nodes.
        lines: how many.
        boots: those of earlier boots, too; a file holds what was printed since klab started the machine.
        follow: whether to wait for more.
        note: told where earlier boots are left out.

    Raises:
        NotFound: the node has printed nothing yet.
        HostError: klab may not read it.
    """
    file = lab.machines().consoles()[node]
    try:
        reader = ConsoleFile(file)
        found = _end(file, reader.end(), lines)
        start = 0 if boots else _last_boot(found)
        if start:
            note(f"{node} has booted again since klab started it: --boots shows what it printed before, too")
        yield b"\n".join(found[start:])
        while follow:
            time.sleep(FOLLOW_SECONDS)
            for piece in reader.read(MOST_AT_ONCE):
                yield piece.data
    except FileNotFoundError:
        raise NotFound(f"{node} has printed nothing yet", hint=(Remedy("status"), " shows whether it runs")) from None
    except PermissionError as error:
        raise _closed(node, file, error) from error


def _closed(node: str, file: Path, error: PermissionError) -> HostError:
    full = rotated(file.resolve())
    begun = [f"{full} has what was printed before: virtlogd, which is root, begins another file when one is full"]
    return HostError(
        f"the console of {node} cannot be read",
        details=[f"{error.strerror}: {file.resolve()}", *(begun if full.exists() else [])],
        hint=(
            f"sudo tail -n 200 {file.resolve()} shows it; ",
            Remedy("stop", node=node),
            " and ",
            Remedy("start", node=node),
            " begin one that you may read",
        ),
    )


def last_lines(file: Path, count: int) -> str:
    """The end of a text file, however long it is; of a console that virtlogd has cut, of both parts.

    Raises:
        OSError: it cannot be read.
    """
    return b"\n".join(_end(file, file.stat().st_size, count)).decode("utf-8", "replace")


def _end(file: Path, size: int, count: int) -> list[bytes]:
    """The last lines of a console of that size; the last of them has an end, or is still being printed."""
    found = _lines_before(file, size, count)
    full = rotated(file.resolve())
    if len(found) <= count and full.exists():
        # virtlogd cuts at the end of a line.
        found = [*_lines_before(full, full.stat().st_size, count)[:-1], *found]
    return found[-count:] if found[-1] else found[-count - 1 :]


def _lines_before(file: Path, end: int, count: int) -> list[bytes]:
    most = min(count * LINE, MOST_AT_ONCE, end)
    with file.open("rb") as opened:
        opened.seek(end - most)
        return opened.read(most).split(b"\n")


def _last_boot(lines: list[bytes]) -> int:
    """At which line the last boot begins: a guest's clock starts again there."""
    start = last = 0
    for number, line in enumerate(lines):
        if found := _SECONDS.match(line):
            seconds = int(found[1])
            if seconds + _STEP_BACK < last:
                start = number
            last = seconds
    return start
