"""How far klab has come with gigabytes: said every few seconds."""

from __future__ import annotations

import time

from lab.cluster.events import Event, Listener
from lab.scenario.sizes import human

EVERY_SECONDS = 5.0


class Progress:
    """Counts bytes of one phase and tells whoever listens, as an event that has not come to its end.

    Args:
        listener: who is told; None for nobody.
        node: whose bytes they are; empty for the lab's.
        phase: what is done with them.
        total: how many there will be, about.
    """

    def __init__(self, listener: Listener | None, node: str, phase: str, total: int) -> None:
        self._listener = listener
        self._node, self._phase, self._total = node, phase, total
        self._done = 0
        self._told = time.monotonic()

    def __call__(self, size: int) -> None:
        """So many bytes more are done."""
        self._done += size
        now = time.monotonic()
        if self._listener is not None and now - self._told >= EVERY_SECONDS:
            self._told = now
            text = f"{human(self._done >> 20)} of {human(max(self._done, self._total) >> 20)}"
            self._listener(Event(time.time(), self._node, self._phase, "begin", text))
