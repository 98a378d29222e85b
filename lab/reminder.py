"""An act that takes long says each minute what it is still doing: a log without news looks like a hang."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from lab.waiting import thread

SECONDS = 60.0


@contextlib.contextmanager
def reminding(remind: Callable[[], None], every: float = SECONDS) -> Iterator[Callable[[], None]]:
    """Call `remind` in a thread whenever there was no news for a while; the block calls what it gets at each news.

    Args:
        remind: tells what is still being done. It may be called while the block tells its news.
        every: seconds without news, and between two reminders.
    """
    lock, over = threading.Condition(), threading.Event()

    def heard() -> None:
        with lock:
            lock.notify()

    def wait() -> None:
        while True:
            with lock:
                news = over.is_set() or lock.wait(every)
            if over.is_set():
                return
            if not news:
                remind()  # without the lock, for which a thread with news would have to wait

    reminder = thread(wait, "klab reminder", daemon=True)
    reminder.start()
    try:
        yield heard
    finally:
        over.set()
        heard()
        reminder.join()


@contextlib.contextmanager
def repeating(tell: Callable[[str], None], every: float = SECONDS) -> Iterator[Callable[[str], None]]:
    """What tells steps as `tell` does, and the last one again whenever nothing has been told for a while.

    Args:
        tell: told one line for each step.
        every: seconds without a line.
    """
    lock = threading.Lock()
    last = ""

    def told(text: str) -> None:
        nonlocal last
        with lock:
            last = text
            tell(text)
        heard()

    def again() -> None:
        with lock:
            if last:
                tell(f"still {last}")

    with reminding(again, every) as heard:
        yield told
