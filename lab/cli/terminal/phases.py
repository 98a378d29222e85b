"""Where each node of a lab is, and what the lab waits for: what the events of a command say so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.cluster.events import NODE_PHASES, Event, State
from lab.plan.model import Node, Plan
from lab.text import visible

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


def title(phase: str) -> str:
    """What a person is told of a phase."""
    return TITLES.get(phase, phase)


def elapsed(seconds: float) -> str:
    """Minutes and seconds: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@dataclass(slots=True)
class NodePhase:
    """The phase of one node. `since` is in seconds since 1970; `text` how far it is; `took` seconds of those before.

    `told`: an event has told of it.
    """

    node: Node
    phase: str
    state: State
    since: float
    text: str = ""
    told: bool = False
    took: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether nothing more is waited for."""
        return self._is_ready or (self.state == "done" and self.phase in FINISHED)

    @property
    def _is_ready(self) -> bool:
        """Whether it is Ready; what is told of how far it is comes afterwards: its images."""
        return "ready" in self.took and not self.text

    def hear(self, event: Event) -> bool:
        """Take in an event of this node that is not a note; returns as `Phases.hear`."""
        if event.state == "done":
            self.took.setdefault(event.phase, event.time - self.since)
        how_far = event.state == "begin" and bool(event.text)
        same = (self.phase, self.state) == (event.phase, event.state)
        if not (how_far and same):
            self.since = event.time
        known, self.told = self.told and same and how_far, True
        self.phase, self.state, self.text = event.phase, event.state, visible(event.text) if how_far else ""
        return known

    def words(self, now: float) -> str:
        """Where it is, such as "boot 1:07"."""
        if self._is_ready:
            return FINISHED["ready"]
        if self.state == "done" and self.phase in FINISHED:
            return FINISHED[self.phase]
        if self.state == "failed":
            return f"{self.phase} failed"
        if self.state == "retry":
            return f"{self.phase}, trying again"
        phase = self.phase
        if self.state == "done":
            if phase not in NODE_PHASES[:2]:
                return f"{phase} done"
            phase = NODE_PHASES[NODE_PHASES.index(phase) + 1]
            phase = "starting" if phase == "init" else phase
        return f"{phase} {elapsed(now - self.since)}{f' ({self.text})' if self.text else ''}"


class Phases:
    """The nodes of these names, or all; before anything is known of them they are in phase `first`, since `zero`."""

    def __init__(self, plan: Plan, nodes: Sequence[str] | None, first: str, zero: float) -> None:
        known = [n for n in plan.nodes if nodes is None or n.name in nodes]
        self._nodes = {n.name: NodePhase(n, first, "begin", zero) for n in known}
        # What the lab as a whole waits for, and how far that is; the latest last.
        self._open = {STARTING if first == "boot" else first: ""}
        self._begun = False

    @property
    def nodes(self) -> list[NodePhase]:
        return list(self._nodes.values())

    @property
    def waiting(self) -> str:
        """What the lab as a whole waits for; empty between two steps."""
        if not self._open:
            return ""
        phase, text = list(self._open.items())[-1]
        return f"{title(phase)} ({text})" if text else title(phase)

    def hear(self, event: Event) -> bool:
        """Take in an event; returns whether it only tells how far a phase is that was known to be under way."""
        if event.state == "note":
            return False
        if event.node:
            node = self._nodes.get(event.node)
            return node is not None and node.hear(event)
        if event.phase == "create":  # the command itself
            return False
        if not self._begun:
            self._begun = True
            self._open.clear()
        known = event.phase in self._open
        if event.state == "begin":
            self._open[event.phase] = visible(event.text)
        elif event.state in {"done", "failed"}:
            self._open.pop(event.phase, None)
        return known and event.state == "begin" and bool(event.text)

    def still(self, now: float) -> str:
        """One line: what is waited for, in the lab and on which nodes."""
        waiting = self.waiting
        groups: dict[str, list[str]] = {}
        for node in self.nodes:
            if not node.finished and node.phase != waiting:
                groups.setdefault(node.words(now), []).append(node.node.name)
        parts = [waiting, *(f"{', '.join(names)}: {words}" for words, names in groups.items())]
        return "; ".join(part for part in parts if part) or "at work"
