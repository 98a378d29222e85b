"""Which threads of this process are in private libvirts: a process shares a lock while one of its threads is."""

from __future__ import annotations

import fcntl
import os
import threading
from collections import Counter
from pathlib import Path

from lab import locks

WHAT = "the private libvirt"  # that is waited for


class Visitors:
    """The threads of this process that are in private libvirts, by the lock that stands for each of those."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[int, list[int]]] = {}  # the open lock; the threads that share it, one many times
        self._lock = threading.Lock()

    def add(self, file: Path) -> None:
        """Share a lock once more in this thread; waits for a klab that is ending this private libvirt."""
        with self._lock:
            self._share(file)

    def stay(self, file: Path) -> None:
        """As `add`, for a thread that does not leave any more; idempotent."""
        with self._lock:
            if threading.get_ident() not in self._threads(file):
                self._share(file)

    def _share(self, file: Path) -> None:
        if file not in self._held:
            handle = locks.open_lock(file)
            try:
                locks.wait_for(handle, WHAT, shared=True)
            except BaseException:
                os.close(handle)
                raise
            self._held[file] = (handle, [])
        self._threads(file).append(threading.get_ident())

    def _threads(self, file: Path) -> list[int]:
        return self._held[file][1] if file in self._held else []

    def drop(self, file: Path) -> None:
        """End one share of this thread."""
        with self._lock:
            threads = self._threads(file)
            if threading.get_ident() in threads:
                threads.remove(threading.get_ident())
            if file in self._held and not threads:
                os.close(self._held.pop(file)[0])

    def mine(self) -> Counter[Path]:
        """How many shares of which locks this thread has."""
        with self._lock:
            return Counter({file: threads.count(threading.get_ident()) for file, (_, threads) in self._held.items()})

    def drop_to(self, before: Counter[Path]) -> None:
        """End the shares that this thread has made since it had those."""
        for file, count in (self.mine() - before).items():
            for _ in range(count):
                self.drop(file)

    def alone(self, file: Path, *, inside: bool) -> bool:
        """Whether no other thread shares the lock: no other process, and no other thread of this one.

        Where the calling thread is `inside` without a share, it is a child of a thread that has one: that one is
        not counted either.
        """
        with self._lock:
            threads, here = self._threads(file), threading.get_ident()
            if len({*threads} - {here}) > int(inside and here not in threads):
                return False
            handle = self._held[file][0] if threads else locks.open_lock(file)
            try:
                return _only_share(handle)
            finally:
                if not threads:
                    os.close(handle)


def _only_share(handle: int) -> bool:
    """Whether no other process shares a lock; it is shared afterwards."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        # Also where that was refused: the kernel has released the share by then (flock(2)).
        fcntl.flock(handle, fcntl.LOCK_SH)
    return True


visitors = Visitors()
