"""Where the time of a create went: spans from the journal, drawn as text or as SVG. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from lab.cluster.events import NODE_PHASES, Event

COLOURS = {
    "boot": "#8fa3bf",
    "cloud-init": "#c49bd0",
    "init": "#3b7dd8",
    "join": "#2aa198",
    "network": "#d98c5f",
    "ready": "#58a65c",
    "clean": "#b0b0b0",
}
OTHER_COLOUR = "#d9a441"
GLYPHS = {"boot": "░", "cloud-init": "▒", "init": "█", "join": "▓", "network": "-", "ready": "=", "clean": "·"}


@dataclass(frozen=True, slots=True)
class Span:
    """One phase of one row. Seconds from the beginning of the create; `row` is a node's name or "lab"."""

    row: str
    phase: str
    start: float
    end: float
    done: bool

    @property
    def seconds(self) -> float:
        return self.end - self.start


def last_create(events: list[Event]) -> list[Event]:
    """The events of the newest create that did work, from its beginning on."""
    starts = [i for i, e in enumerate(events) if e.phase == "create" and e.state == "begin" and not e.text]
    return events[starts[-1] :] if starts else events


def spans(events: list[Event]) -> list[Span]:
    """Turn a journal into spans: nodes first, in order of appearance, then the lab's own steps."""
    if not events:
        return []
    zero, last = events[0].time, events[-1].time
    found: list[Span] = []
    for node in dict.fromkeys(e.node for e in events if e.node):
        found += _node_spans([e for e in events if e.node == node], node, zero, last)
    open_steps: dict[str, float] = {}
    for event in (e for e in events if not e.node and e.phase != "create"):
        if event.state == "begin":
            open_steps.setdefault(event.phase, event.time)
        elif event.state in {"done", "failed"} and event.phase in open_steps:
            start = open_steps.pop(event.phase)
            found.append(Span("lab", event.phase, start - zero, event.time - zero, event.state == "done"))
    found += [Span("lab", phase, start - zero, last - zero, False) for phase, start in open_steps.items()]
    return found


def _node_spans(events: list[Event], node: str, zero: float, last: float) -> list[Span]:
    """A node's phases follow one another: each lasts from the end of the one before to its own `done`."""
    found = []
    start = zero
    seen: set[str] = set()
    for event in events:
        if event.phase not in NODE_PHASES or event.state not in {"done", "failed"} or event.phase in seen:
            continue
        seen.add(event.phase)
        found.append(Span(node, event.phase, start - zero, event.time - zero, event.state == "done"))
        start = event.time
    began = [e for e in events if e.state == "begin" and e.phase not in seen]
    if began:
        found.append(Span(node, began[-1].phase, began[-1].time - zero, last - zero, False))
    return found


def draw_text(found: list[Span], *, width: int = 72) -> str:
    """The chart for a terminal: a row for each node, then the lab's steps with their seconds."""
    if not found:
        return "nothing has happened yet"
    total = max(s.end for s in found) or 1.0
    rows = list(dict.fromkeys(s.row for s in found if s.row != "lab"))
    label = max((len(r) for r in rows), default=4)
    lines = []
    for row in rows:
        bar = [" "] * width
        mine = [s for s in found if s.row == row]
        for s in mine:
            first, end = round(s.start / total * width), round(s.end / total * width)
            bar[first:end] = GLYPHS.get(s.phase, "█") * (end - first)
        parts = "  ".join(f"{s.phase} {s.seconds:.0f}s{'' if s.done else '...'}" for s in mine)
        lines += [f"{row:>{label}} |{''.join(bar)}|", f"{'':>{label}}  {parts}"]
    lines.append(f"{'':>{label}} 0s{f'{total:.0f}s':>{width}}")
    lines.append("")
    lines += [
        f"{s.start:7.0f}s {s.seconds:6.0f}s  {s.phase}{'' if s.done else ' (not done)'}"
        for s in found
        if s.row == "lab"
    ]
    legend = "  ".join(f"{glyph} {phase}" for phase, glyph in GLYPHS.items())
    return "\n".join([*lines, "", legend])


def draw_svg(found: list[Span], *, title: str) -> str:
    """The chart as a stand-alone SVG document."""
    left, width, height, gap, top = 260, 760, 22, 8, 56
    total = max((s.end for s in found), default=1.0) or 1.0
    nodes = list(dict.fromkeys(s.row for s in found if s.row != "lab"))
    rows = [*nodes, *dict.fromkeys(s.phase for s in found if s.row == "lab")]
    bottom = top + len(rows) * (height + gap)

    def x(seconds: float) -> float:
        return left + seconds / total * width

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 40} {bottom + 60}" '
        f'font-family="sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="20" y="30" font-size="17" '
        f'font-weight="bold">{escape(title)}</text>',
    ]
    step = _tick(total)
    parts += [
        f'<line x1="{x(tick):.1f}" y1="{top - 6}" x2="{x(tick):.1f}" y2="{bottom}" stroke="#e3e3e3"/>'
        f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#666">{tick:.0f}s</text>'
        for tick in (i * step for i in range(int(total // step) + 1))
    ]
    for i, row in enumerate(rows):
        y = top + i * (height + gap)
        parts.append(f'<text x="{left - 10}" y="{y + 16}" text-anchor="end">{escape(row)}</text>')
        for s in found:
            if s.row != row and not (s.row == "lab" and s.phase == row):
                continue
            wide = max(1.0, x(s.end) - x(s.start))
            parts.append(
                f'<rect x="{x(s.start):.1f}" y="{y}" width="{wide:.1f}" height="{height}" rx="3" '
                f'fill="{COLOURS.get(s.phase, OTHER_COLOUR)}" fill-opacity="{1 if s.done else 0.4}">'
                f"<title>{escape(s.phase)}: {s.seconds:.1f} s</title></rect>"
            )
            if wide > 58:
                parts.append(
                    f'<text x="{x(s.start) + 5:.1f}" y="{y + 15}" fill="#fff" font-size="11">'
                    f"{escape(s.phase) if s.row != 'lab' else ''} {s.seconds:.0f}s</text>"
                )
    for i, (phase, colour) in enumerate(COLOURS.items()):
        at = left + i * 105
        parts.append(
            f'<rect x="{at}" y="{bottom + 30}" width="12" height="12" rx="2" fill="{colour}"/>'
            f'<text x="{at + 17}" y="{bottom + 41}" fill="#333">{phase}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _tick(total: float) -> float:
    """A round step that gives at most ten ticks; a clock that was set may make a create look years long."""
    return next((step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800) if total / step <= 10), total / 10)
