"""What is in a box, file by file: contents.txt.

One line for each path, sorted, so that two builds are compared by comparing two texts:

    <SHA-256 | link target | kind> <mode, octal> <uid>:<gid> <path>
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.boxes.cache import digest_file


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that two builds do not agree on."""

    path: str
    kind: Literal["only in the first", "only in the second", "differs"]


def list_contents(root: Path) -> str:
    """The text of contents.txt for a file system below `root`."""
    return "".join(f"{line}\n" for line in sorted(_lines(root), key=_path))


def compare_contents(first: str, second: str) -> list[Difference]:
    """Every path that two such texts do not agree on, sorted."""
    one = {_path(line): line for line in first.splitlines()}
    two = {_path(line): line for line in second.splitlines()}
    found = []
    for path in sorted(one.keys() | two.keys()):
        if path not in two:
            found.append(Difference(path, "only in the first"))
        elif path not in one:
            found.append(Difference(path, "only in the second"))
        elif one[path] != two[path]:
            found.append(Difference(path, "differs"))
    return found


def _path(line: str) -> str:
    return line.split(" ", 3)[3]


def _lines(root: Path) -> Iterator[str]:
    # A file with several names (the registry's blobs) is hashed once.
    known: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            found = path.lstat()
            what = known.get(found.st_ino) or _what(path, found.st_mode)
            if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
                known[found.st_ino] = what
            mode = stat.S_IMODE(found.st_mode)
            yield f"{what} {mode:04o} {found.st_uid}:{found.st_gid} /{path.relative_to(root).as_posix()}"


def _what(path: Path, mode: int) -> str:
    if stat.S_ISREG(mode):
        return digest_file(path)
    if stat.S_ISLNK(mode):
        # A target with a blank would break the line apart; none in Debian has one.
        return f"->{path.readlink().as_posix()}".replace(" ", "%20")
    return "folder" if stat.S_ISDIR(mode) else "special"
