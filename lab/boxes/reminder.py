"""A step that takes long says each minute that it still does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from lab.waiting import thread

SECONDS = 60.0


@contextlib.contextmanager
def reminding(tell: Callable[[str], None], every: float = SECONDS) -> Iterator[Callable[[str], None]]:
    """What tells steps as `tell` does, and the last one again whenever nothing has been told for a while.

    Args:
        tell: told one line for each step.
        every: seconds without a line.
    """
    lock, over = threading.Condition(), False
    last = ""

    def heard(text: str) -> None:
        nonlocal last
        with lock:
            last = text
            tell(text)
            lock.notify()

    def remind() -> None:
        with lock:
            while not over:
                if not lock.wait(every) and last and not over:
                    tell(f"still {last}")

    reminder = thread(remind, "klab reminder", daemon=True)
    reminder.start()
    try:
        yield heard
    finally:
        with lock:
            over = True
            lock.notify()
        reminder.join()
