"""Locks on files, which the kernel lets go of when the process ends, however it ends.

A lock's file holds the id of the process that has it, so that a process that waits can say for which one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError
from lab.text import shortened

POLL_SECONDS = 0.1
QUIET_SECONDS = 2.0
TELL_SECONDS = 10.0  # between two messages about a wait
PATIENCE = 60.0
PROC = Path("/proc")
_STRANGE = {errno.ELOOP: "a symbolic link", errno.EISDIR: "a folder", errno.ENXIO: "a socket"}


def _to_nobody(_text: str) -> None:
    """Say nothing about waits; the default."""


_tell: Callable[[str], None] = _to_nobody


def tell_of_waits(tell: Callable[[str], None]) -> None:
    """Set what is called, for the whole process, with a line about a lock that is waited for."""
    global _tell
    _tell = tell


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has a lock: its id (0 where that is not known), its command line, and whether it is stopped."""

    pid: int = 0
    command: str = ""
    stopped: bool = False

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid}" + (f" ({self.command})" if self.command else "")

    @property
    def way_out(self) -> str:
        """What lets it end."""
        if self.stopped:
            return f"it is stopped (Ctrl-Z): continue it with fg in its terminal, or with kill -CONT {self.pid}"
        return "wait for it to end, or press Ctrl-C there"


@contextlib.contextmanager
def locked(file: Path, what: str, *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a lock; print a message if the wait is longer than a moment.

    Args:
        file: the lock's file; it is made where there is none, and stays.
        what: what the lock is for, to follow "waiting for".
        patience: seconds to wait.

    Raises:
        HostError: another process has held it all the time; or the file is not a regular file.
    """
    handle = open_lock(file)
    try:
        wait_for(handle, what, patience=patience)
        sign(handle)
        yield
    finally:
        os.close(handle)


def wait_for(handle: int, what: str, *, shared: bool = False, patience: float = PATIENCE) -> None:
    """Lock an open lock file until it is closed; arguments and errors as `locked`.

    Args:
        handle: the file.
        what: what the lock is for.
        shared: other processes may hold it at the same time if they ask for a shared lock, too.
        patience: seconds to wait.
    """
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    began, due = time.monotonic(), QUIET_SECONDS
    while True:
        try:
            fcntl.flock(handle, operation)
        except BlockingIOError:
            waited, holder = time.monotonic() - began, holder_of(handle)
            if waited >= patience:
                raise HostError(
                    f"waited {waited:.0f} s for {what}, which {holder} holds", hint=holder.way_out
                ) from None
            if waited >= due:
                _tell(f"waiting for {what}, which {holder} holds; {waited:.0f} s so far")
                due = waited + TELL_SECONDS
            time.sleep(POLL_SECONDS)
        else:
            return


def open_lock(file: Path) -> int:
    """A lock's file, open and not locked; made where there is none.

    Raises:
        HostError: what lies there is not a regular file.
        OSError: it cannot be opened.
    """
    # A link, pipe or device in the lock's place is not followed, written to or waited for.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        handle = os.open(file, flags, 0o600)
    except OSError as error:
        if error.errno not in _STRANGE:
            raise
        raise _no_lock(file, _STRANGE[error.errno]) from None
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise _no_lock(file, "not a regular file")


def _no_lock(file: Path, kind: str) -> HostError:
    return HostError(f"klab's lock {file} is {kind}", hint="remove it; klab makes the file when it needs it")


def sign(handle: int) -> None:
    """Write this process's id into a lock that it holds."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)


def holder_of(handle: int) -> Holder:
    """The process that holds a lock, as far as its file and the kernel say."""
    text = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    if not (text.isascii() and text.isdecimal()):
        return Holder()
    pid = int(text)
    try:
        words = (PROC / text / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace").split("\0")
        state = (PROC / text / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return Holder(pid)
    return Holder(pid, shortened(shlex.join(words)), stopped=state in {"T", "t"})


def hold(handle: int, path: Path) -> bool:
    """Lock an open file or folder until it is closed.

    Returns:
        Whether `path` still names this file. The process that held the lock may have removed the file in between;
        the next process would then lock another one.

    Raises:
        BlockingIOError: another process holds it.
    """
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
