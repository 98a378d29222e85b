"""Look at a lab: once, or again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from lab.app.labs import Labs
from lab.cluster.lab import Lab
from lab.cluster.observe import collect
from lab.cluster.observe.facts import ClusterFacts
from lab.store import Record


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a lab, its plan and its record at that moment."""

    lab: Lab
    record: Record
    facts: ClusterFacts


def look(lab: Lab) -> Look:
    """Look at an entered lab."""
    return next(watch(lab))


def watch(lab: Lab, interval: float = 0) -> Iterator[Look]:
    """Look at an entered lab without end, with `interval` seconds between two looks.

    Raises:
        NotFound: the lab is gone.
    """
    record = lab.record
    machines = lab.machines(record)
    while True:
        yield Look(lab, record, collect.collect_facts(lab.folder, lab.plan, record, machines, reach=lab.reach))
        time.sleep(interval)
        # Meanwhile the lab may have grown, or be gone.
        now = Labs(lab.home).find(lab.name)
        if (now.plan, now.record) != (lab.plan, record):
            lab, record = replace(lab, plan=now.plan), now.record
            machines = lab.machines(record)
