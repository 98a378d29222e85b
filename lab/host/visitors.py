"""Which threads of this process are in private libvirts: a process shares a lock while one of its threads is."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from lab import locks

WHAT = "the private libvirt"  # that is waited for


class Visitors:
    """The threads of this process that are in private libvirts, by the lock that stands for each of those."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[int, int]] = {}  # the open lock, and how many threads share it
        self._lock = threading.Lock()

    def add(self, file: Path) -> None:
        """Share a lock; waits for a klab that is ending this private libvirt."""
        with self._lock:
            handle, count = self._held.get(file, (-1, 0))
            if not count:
                handle = locks.open_lock(file)
                locks.wait_for(handle, WHAT, shared=True)
            self._held[file] = (handle, count + 1)

    def drop(self, file: Path) -> None:
        """End one share."""
        with self._lock:
            handle, count = self._held.pop(file, (-1, 0))
            if count > 1:
                self._held[file] = (handle, count - 1)
            elif count:
                os.close(handle)

    def drop_all(self) -> None:
        """End every share of this process."""
        with self._lock:
            while self._held:
                os.close(self._held.popitem()[1][0])

    def alone(self, file: Path) -> bool:
        """Whether nobody shares the lock but, at most, one thread of this process."""
        with self._lock:
            handle, count = self._held.get(file, (-1, 0))
            if count > 1:
                return False
            try:
                if count:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(handle, fcntl.LOCK_SH)
                    return True
                other = locks.open_lock(file)
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                finally:
                    os.close(other)
            except BlockingIOError:
                return False
            return True


visitors = Visitors()
