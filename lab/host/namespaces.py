"""Linux namespaces: finding a process in them, and walking in.

Source: namespaces(7), setns(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError

PROC = Path("/proc")
# <sched.h>; os.setns and its constants exist from Python 3.12 on only.
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Namespaces:
    """A network and a mount namespace, by the identities the kernel shows under /proc/PID/ns."""

    net: str
    mnt: str

    @classmethod
    def of(cls, pid: int | str) -> Namespaces | None:
        """Those of one process; None when it is gone or not ours to look at."""
        try:
            folder = PROC / str(pid) / "ns"
            return cls(net=str((folder / "net").readlink()), mnt=str((folder / "mnt").readlink()))
        except OSError:
            return None

    def members(self) -> Iterator[int]:
        """The processes that are in both, klab itself included when it has walked in."""
        for entry in PROC.iterdir():
            if entry.name.isdigit() and Namespaces.of(entry.name) == self:
                yield int(entry.name)


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is no such process.

    Together with the pid this names one process for good: pids are used again.
    Source: proc_pid_stat(5), field 22.
    """
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")  # a program's name may be any bytes
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def command(pid: int) -> str:
    """The name of the program a process runs; empty when it is gone."""
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def enter_namespaces(pid: int) -> None:
    """Put the calling thread into another process' network and mount namespace; the working directory stays.

    Threads and programs that it starts afterwards are there, too; other threads of this process are not.

    Raises:
        HostError: the process is gone, or klab may not.
    """
    here = Path.cwd()
    try:
        with contextlib.ExitStack() as stack:
            _move(_opened(str(pid), stack))
        os.chdir(here)
    except OSError as error:
        raise HostError(
            "klab cannot enter its private libvirt",
            details=[f"process {pid}: {error}"],
            hint="run klab as root, or start the system's libvirtd: sudo systemctl enable --now libvirtd",
        ) from error


@contextlib.contextmanager
def entered(pid: int) -> Iterator[None]:
    """Have the calling thread in another process' namespaces, as `enter_namespaces`; afterwards it is back.

    Raises:
        HostError: as `enter_namespaces`.
    """
    with contextlib.ExitStack() as stack:
        here, back = Path.cwd(), _opened("thread-self", stack)
        try:
            enter_namespaces(pid)  # may fail in between
            yield
        finally:
            _move(back)
            os.chdir(here)


@contextlib.contextmanager
def returning() -> Iterator[None]:
    """Have the calling thread, at the end of the block, in the namespaces and the folder in which it is now."""
    if not (PROC / "thread-self").exists():  # not Linux: nothing moves a thread there
        yield
        return
    with contextlib.ExitStack() as stack:
        here, spaces, back = Path.cwd(), Namespaces.of("thread-self"), _opened("thread-self", stack)
        try:
            yield
        finally:
            if Namespaces.of("thread-self") != spaces:
                _move(back)
                os.chdir(here)


def _opened(process: str, stack: contextlib.ExitStack) -> list[tuple[int, int]]:
    """Handles of a process' namespaces, each with its flag; all are open before /proc may be another's."""
    opened = []
    for kind, flag in (("net", CLONE_NEWNET), ("mnt", CLONE_NEWNS)):
        handle = os.open(PROC / process / "ns" / kind, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, handle)
        opened.append((handle, flag))
    return opened


def _move(namespaces: list[tuple[int, int]]) -> None:
    # The kernel moves no thread whose root and working directory others share (setns(2)), and one that
    # has been joined may share them for some milliseconds more.
    _call("unshare", CLONE_FS)
    for handle, flag in namespaces:
        _call("setns", handle, flag)


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
