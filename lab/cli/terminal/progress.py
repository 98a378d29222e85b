"""The events of a command while it runs: a live table on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from lab.cli.terminal.output import echo, note
from lab.cli.terminal.phases import STARTING, NodePhase, Phases, elapsed, title
from lab.cluster.events import NODE_PHASES, Event, Listener
from lab.plan.model import Plan
from lab.reminder import reminding
from lab.text import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


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
        lines = PlainLines(Phases(plan, nodes, first, time.time()))
        with reminding(lines.remind) as lines.heard:
            yield lines


def _json_line(event: Event) -> None:
    echo(json.dumps({"event": asdict(event)}))


class PlainLines:
    """One line an event, with the time since the first; how far a phase is only where it is reminded of."""

    def __init__(self, phases: Phases) -> None:
        self.heard: Callable[[], None] = lambda: None
        self._phases = phases
        self._zero: float | None = None
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._zero = self._zero or event.time
            if self._phases.hear(event):
                return
            self._print(event)
        self.heard()

    def _print(self, event: Event) -> None:
        if event.phase == "create":  # the command itself; the machines' first sign of life is minutes away
            if event.state == "begin":
                self._line(event.time, f"{STARTING} ...")
            return
        who = f"{event.node}: " if event.node else ""
        what = {"begin": "...", "done": "done", "retry": "trying again", "failed": "FAILED", "note": ""}[event.state]
        text = f" ({event.text})" if event.text else ""
        self._line(event.time, f"{who}{title(event.phase)} {what}{text}")

    def remind(self) -> None:
        """Print what is still waited for."""
        with self._lock:
            now = time.time()
            self._zero = self._zero or now
            self._line(now, f"still {self._phases.still(now)}")

    def _line(self, moment: float, text: str) -> None:
        note(f"[{elapsed(moment - (self._zero or moment)):>6}] {text}")


class LiveTable:
    """A row for each node: its phase, how long it has been in it; below, what the lab waits for."""

    REFRESH_PER_SECOND = 4

    def __init__(self, plan: Plan, console: Console, nodes: Sequence[str] | None = None, first: str = "boot") -> None:
        self._console = console
        self._zero = time.time()
        self._lock = threading.Lock()
        self._phases = Phases(plan, nodes, first, self._zero)
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
            self._phases.hear(event)

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            now = time.time()
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for heading in ("node", "address", "now", "so far"):
                table.add_column(heading, header_style="dim", no_wrap=heading != "so far")
            for each in self._phases.nodes:
                table.add_row(
                    Text(each.node.name, style="bold"),
                    str(each.node.address),
                    Text(each.words(now), style=_style(each)),
                    Text("  ".join(f"{p} {elapsed(s)}" for p, s in each.took.items()), style="dim"),
                )
            footer = Text(f"{elapsed(now - self._zero)}  ", style="bold")
            if waiting := self._phases.waiting:
                footer.append(f"waiting for: {waiting}", style="dim")
            return Group(table, footer)


def _style(node: NodePhase) -> str:
    if node.finished:
        return "green"
    if node.phase in NODE_PHASES[:2] and node.state == "done":  # it is in the next one
        return ""
    return {"failed": "red", "retry": "yellow", "done": "cyan"}.get(node.state, "")
