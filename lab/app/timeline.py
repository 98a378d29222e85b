"""Where the time of a create went."""

from __future__ import annotations

from lab.cluster.events import read_events
from lab.cluster.timeline import Span, last_create, spans
from lab.store import LabFolder


def timeline(folder: LabFolder) -> list[Span]:
    """The phases of the last create of a lab, for the lab as a whole and for each node."""
    return spans(last_create(read_events(folder.events)))
