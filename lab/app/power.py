"""Stop, start and reboot a lab, or some of its nodes.

Each function takes a lab that `lab.app.labs` has entered, the names of nodes (all when left out), a time limit in
seconds and a listener. Each raises what the act of `lab.cluster.acts.power` raises, and `Interrupted` on Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from lab.app.interruption import interruptible
from lab.cluster.acts import power
from lab.cluster.acts.power import PowerResult
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.errors import Remedy


def stop(
    lab: Lab,
    nodes: Sequence[str] = (),
    *,
    force: bool = False,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> PowerResult:
    """Shut machines down; with `force` cut their power."""
    with _half_way():
        return power.stop(lab.watched_by(listener, timeout), nodes, force=force)


def start(
    lab: Lab, nodes: Sequence[str] = (), *, timeout: float | None = None, listener: Listener | None = None
) -> PowerResult:
    """Start machines and wait until every node that runs is Ready."""
    with _half_way():
        return power.start(lab.watched_by(listener, timeout), nodes)


def reboot(
    lab: Lab,
    nodes: Sequence[str] = (),
    *,
    force: bool = False,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> PowerResult:
    """Shut machines down, all at once, start them again and wait as `start` does."""
    with _half_way():
        return power.reboot(lab.watched_by(listener, timeout), nodes, force=force)


def _half_way() -> AbstractContextManager[None]:
    return interruptible(
        "stopped half-way", (Remedy("status"), " shows what runs; run the same command again to continue")
    )
