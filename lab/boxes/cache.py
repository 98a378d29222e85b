"""What a second build need not make again.

Each step's result lies in a folder named by everything that went into it, so that a
changed input makes a new folder and an unchanged one is found. A folder appears under
its final name only when it is complete: a build killed half-way leaves `.partial`
folders, which the next build removes, and whole steps, which it uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import Conflict
from lab.locks import holder_of, open_lock, sign

PARTIAL = ".partial"


def key_of(*parts: object) -> str:
    """SHA-256 over values that JSON can write, in hex; equal values give equal keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=list).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(folder: Path, *parts: object, leave_out: str = "") -> str:
    """SHA-256 over names, executable bits and content of a folder's files but one, and over `parts`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / leave_out)
    listed = [(p.relative_to(folder).as_posix(), bool(p.stat().st_mode & 0o100), digest_file(p)) for p in files]
    return key_of(listed, *parts)


@dataclass(frozen=True, slots=True)
class Cache:
    """The folder that keeps results of build steps: ROOT/STEP/KEY."""

    root: Path

    def step(self, name: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder with a step's result; `make` fills it where it does not exist yet."""
        target = self.root / name / key[:20]
        if target.is_dir():
            return target
        partial = target.with_name(target.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            make(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(target)
        return target

    def has(self, name: str, key: str) -> bool:
        """Whether a step's result is there."""
        return (self.root / name / key[:20]).is_dir()

    def sweep(self) -> None:
        """Remove what a killed build left behind. Only under the lock."""
        if self.root.is_dir():
            for partial in (*self.root.glob(f"*{PARTIAL}"), *self.root.glob(f"*/*{PARTIAL}")):
                shutil.rmtree(partial, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, tell: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold boxes and cache for one process; the kernel lets go when the process ends, however it ends.

        Args:
            tell: told which other process holds them, before it is waited for; without it nobody waits.

        Raises:
            Conflict: another process holds them, and nobody waits.
            HostError: what lies in the lock's place is not a regular file.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        handle = open_lock(self.root / ".lock")
        try:
            _take(handle, tell)
            sign(handle)
            yield
        finally:
            os.close(handle)


def _take(handle: int, tell: Callable[[str], None] | None) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = holder_of(handle)
        if tell is None:
            raise Conflict(f"{holder} is building or changing boxes here", hint=holder.way_out) from None
        tell(f"waiting for {holder}, which is building or changing boxes here: {holder.way_out}")
        fcntl.flock(handle, fcntl.LOCK_EX)
