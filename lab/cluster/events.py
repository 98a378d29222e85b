"""What happened when: the events of a lab's making, kept in its folder and shown as they come.

An event names a node ("" for the lab as a whole), a phase and what became of it. The
journal (events.jsonl, one JSON object a line) is what `klab timeline` draws.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lab import records
from lab.errors import LabError

State = Literal["begin", "done", "retry", "failed", "note"]
_LATEST = 1 << 36  # of the year 4147; what a clock shows
STATES: tuple[State, ...] = ("begin", "done", "retry", "failed", "note")
# The phases of a node, in order; a person sees their titles.
NODE_PHASES = ("boot", "cloud-init", "init", "join", "network", "ready", "clean")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `time` is the host's, in seconds since 1970."""

    time: float
    node: str
    phase: str
    state: State
    text: str = ""


Listener = Callable[[Event], None]  # told each event as it happens


class Journal:
    """Writes events down and tells its listener; may be used from several threads."""

    def __init__(self, file: Path, listener: Listener | None = None) -> None:
        self._file = file
        self._listener = listener
        self._lock = threading.Lock()

    def add(self, node: str, phase: str, state: State, text: str = "") -> Event:
        """Note an event that happens now."""
        event = Event(time.time(), node, phase, state, text)
        with self._lock:
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(asdict(event)) + "\n")
            if self._listener:
                self._listener(event)
        return event

    def tell(self, event: Event) -> None:
        """Tell the listener of an event that need not be written down, such as how far something is."""
        with self._lock:
            if self._listener:
                self._listener(event)

    def waits(self, phase: str, text: str) -> None:
        """Tell the listener what a phase of the lab still waits for; it is not written down."""
        self.tell(Event(time.time(), "", phase, "begin", text))

    @contextmanager
    def span(self, node: str, phase: str) -> Iterator[None]:
        """Note that a phase begins, and when the block ends that it is done; a LabError is noted with its message."""
        self.add(node, phase, "begin")
        try:
            yield
        except LabError as error:
            with suppress(OSError):  # a full disk is not to hide why
                self.add(node, phase, "failed", error.message)
            raise
        self.add(node, phase, "done")


def read_events(file: Path) -> list[Event]:
    """All events of a journal, oldest first; a line that is damaged, or cut off by a kill, is passed over."""
    return list(_parse(file.read_text(encoding="utf-8", errors="replace").splitlines())) if file.exists() else []


def _parse(lines: list[str]) -> Iterator[Event]:
    for line in lines:
        try:
            event = records.build(Event, records.parse(line))
        except records.RecordError:
            continue
        if 0 <= event.time < _LATEST:
            yield event


def phase_of(events: list[Event], node: str) -> tuple[str, State]:
    """The phase a node is in, and its state; ("boot", "begin") before its first sign of life."""
    mine = [e for e in events if e.node == node and e.phase in NODE_PHASES and e.state != "note"]
    return (mine[-1].phase, mine[-1].state) if mine else ("boot", "begin")
