"""The events of a command while it runs: a live table on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from lab.cli.terminal.output import echo, note
from lab.cluster.events import NODE_PHASES, Event, Listener
from lab.plan.model import Plan
from lab.text import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


# What a node is once a phase that may be its last one is done.
FINISHED = {
    "ready": "Ready",
    "shutdown": "off",
    "start": "up",
    "drain": "drained",
    "remove": "gone",
    "reset": "no member",
    "renew": "renewed",
    "upgrade": "upgraded",
    "clock": "running",
}


STARTING = "starting the machines"
# Phases whose names in events, which programs read, are not what a person is told.
TITLES = {"checkpoint": "export"}


def _title(phase: str) -> str:
    return TITLES.get(phase, phase)


@contextmanager
def show(plan: Plan, *, as_json: bool, nodes: Sequence[str] | None = None, first: str = "boot") -> Iterator[Listener]:
    """The listener that fits where the output goes.

    The live table shows the nodes of these names, or all; before anything is known of them they are in phase `first`.
    """
    if as_json:
        yield _json_line
    elif sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console

        with LiveTable(plan, Console(stderr=True), nodes, first) as table:
            yield table
    else:
        yield PlainLines()


def _json_line(event: Event) -> None:
    echo(json.dumps({"event": asdict(event)}))


def elapsed(seconds: float) -> str:
    """Minutes and seconds: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class PlainLines:
    """One line an event, with the time since the first."""

    def __init__(self) -> None:
        self._zero: float | None = None

    def __call__(self, event: Event) -> None:
        self._zero = self._zero or event.time
        if event.phase == "create":  # the command itself; the machines' first sign of life is minutes away
            if event.state == "begin":
                note(f"[{elapsed(0):>6}] {STARTING} ...")
            return
        who = f"{event.node}: " if event.node else ""
        what = {"begin": "...", "done": "done", "retry": "trying again", "failed": "FAILED", "note": ""}[event.state]
        text = f" ({event.text})" if event.text else ""
        note(f"[{elapsed(event.time - self._zero):>6}] {who}{_title(event.phase)} {what}{text}")


class LiveTable:
    """A row for each node: its phase, how long it has been in it; below, what the lab waits for."""

    REFRESH_PER_SECOND = 4

    def __init__(self, plan: Plan, console: Console, nodes: Sequence[str] | None = None, first: str = "boot") -> None:
        self._nodes = [n for n in plan.nodes if nodes is None or n.name in nodes]
        self._console = console
        self._zero = time.time()
        self._lock = threading.Lock()
        self._phase: dict[str, tuple[str, str, float]] = {n.name: (first, "begin", self._zero) for n in self._nodes}
        self._text = dict.fromkeys(self._phase, "")
        self._took: dict[str, dict[str, float]] = {n.name: {} for n in self._nodes}
        self._waiting = STARTING if first == "boot" else first
        self._live: Live | None = None

    def __enter__(self) -> LiveTable:
        from rich.live import Live

        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=self.REFRESH_PER_SECOND)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if not event.node and event.state == "note":
            # Not under the lock: it is printed above the table, which is drawn again for it.
            self._console.print(f"{event.phase}: {visible(event.text)}", markup=False, highlight=False)
            return
        with self._lock:
            if not event.node:
                if event.state == "begin" and event.phase != "create":
                    title = _title(event.phase)
                    self._waiting = f"{title} ({visible(event.text)})" if event.text else title
                return
            if event.state == "note" or event.node not in self._phase:
                return
            *before, since = self._phase[event.node]
            if event.state == "done":
                self._took[event.node].setdefault(event.phase, event.time - since)
            told = event.state == "begin" and event.text  # how far it is
            began = since if told and before == [event.phase, event.state] else event.time
            self._phase[event.node] = (event.phase, event.state, began)
            self._text[event.node] = f" ({visible(event.text)})" if told else ""

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            now = time.time()
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for heading in ("node", "address", "now", "so far"):
                table.add_column(heading, header_style="dim", no_wrap=heading != "so far")
            for node in self._nodes:
                phase, state, since = self._phase[node.name]
                ready, text = "ready" in self._took[node.name], self._text[node.name]
                table.add_row(
                    Text(node.name, style="bold"),
                    str(node.address),
                    # What is told of how far it is comes afterwards: its images.
                    _now("ready", "done", 0) if ready and not text else _now(phase, state, now - since, text),
                    Text("  ".join(f"{p} {elapsed(s)}" for p, s in self._took[node.name].items()), style="dim"),
                )
            footer = Text(f"{elapsed(now - self._zero)}  ", style="bold")
            footer.append(f"waiting for: {self._waiting}", style="dim")
            return Group(table, footer)


def _now(phase: str, state: str, seconds: float, text: str = "") -> RenderableType:
    from rich.text import Text

    if state == "done" and phase in FINISHED:
        return Text(FINISHED[phase], style="green")
    if state == "failed":
        return Text(f"{phase} failed", style="red")
    if state == "retry":
        return Text(f"{phase}, trying again", style="yellow")
    if state == "done" and phase in NODE_PHASES[:2]:
        phase = NODE_PHASES[NODE_PHASES.index(phase) + 1]
        phase = "starting" if phase == "init" else phase
    elif state == "done":
        return Text(f"{phase} done", style="cyan")
    return Text(f"{phase} {elapsed(seconds)}{text}")
