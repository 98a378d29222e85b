"""Progress over gigabytes, reported every few seconds."""

from __future__ import annotations

import time

from lab.cluster.events import Event, Listener
from lab.scenario.sizes import human

EVERY_SECONDS = 5.0


class Progress:
    """Counts the bytes of one phase and reports them to a listener, as events of a phase that is not done.

    Args:
        listener: receives the events; None for none.
        node: the node whose bytes they are; empty for the lab's.
        phase: the name of the phase.
        total: about how many there will be.
        what: begins the text, as "file 1 of 3, "; empty for nothing.
    """

    def __init__(self, listener: Listener | None, node: str, phase: str, total: int, what: str = "") -> None:
        self._listener = listener
        self._node, self._phase, self._total = node, phase, total
        self._what = what
        self._done = 0
        self._told = time.monotonic()

    def __call__(self, size: int) -> None:
        """Count so many bytes more."""
        self._done += size
        now = time.monotonic()
        if self._listener is not None and now - self._told >= EVERY_SECONDS:
            self._told = now
            text = f"{self._what}{human(self._done >> 20)} of {human(max(self._done, self._total) >> 20)}"
            self._listener(Event(time.time(), self._node, self._phase, "begin", text))
