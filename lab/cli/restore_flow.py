"""What klab restore does; apart from the command so that `klab --help` stays quick."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from lab.app.interruption import interruptible
from lab.cli.snapshot_flow import parts_of
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.progress import elapsed, show
from lab.cli.terminal.words import seconds_in
from lab.errors import ClusterError
from lab.snapshots.commands import restore
from lab.snapshots.restore import Restored

if TYPE_CHECKING:
    from lab.cli.opening import OpenLab


def run_restore(
    lab: OpenLab, name: str | None, *, node: str | None, keep: bool, timeout: str | None, as_json: bool
) -> None:
    """Bring a lab back, say how it went, then watch the leases."""
    limit = seconds_in(timeout)
    lab.enter(changes=True)
    with (
        interruptible("stopped; the lab has not been touched", "klab restore again brings it back"),
        show(lab.plan, as_json=as_json, nodes=[node] if node else None, first="check") as listener,
    ):
        done = restore(lab.lab(limit, listener), name, node=node, keep=keep)
    if not as_json:
        _report(lab, done)
    began = time.monotonic()
    with interruptible("the lab is back, but not every lease was seen renewed", "klab status shows the lab's nodes"):
        late = done.verification.leases()
    done.seconds["leases"] = time.monotonic() - began
    if as_json:
        echo(json.dumps(_result(lab, done, late)))
    if late:
        raise ClusterError(
            f"{lab.name} is back, but not every node has renewed its lease since",
            details=late,
            hint=f"klab doctor {lab.name} says what is wrong and what repairs it",
        )
    if not as_json and done.verification.full:
        note(f"every node's lease was renewed after another {elapsed(time.monotonic() - began)}")


def _report(lab: OpenLab, done: Restored) -> None:
    who = lab.name if len(done.nodes) == len(lab.plan.nodes) else ", ".join(done.nodes)
    running = "Ready" if done.verification.full else "up"
    state = running if done.running else "off, as it was"
    note(f"{who} is back at {done.manifest.name} and {state} after {elapsed(done.ready)}")
    inner = {f"  {what}": after for what, after in done.asked.items()}
    parts = [each for part, took in done.seconds.items() for each in ((part, took), *_within(part, inner))]
    for line in parts_of(dict(parts)):
        note(line)
    if done.auto is not None:
        name = done.auto.name
        note(f"as it was before is kept as {name}; klab restore {lab.name} {name} goes back there")
    for line in done.warnings:
        note(line)


def _within(part: str, asked: dict[str, float]) -> list[tuple[str, float]]:
    """What was asked for in a part, all of it at once."""
    return list(asked.items()) if part == "verify" else []


def _result(lab: OpenLab, done: Restored, late: list[str]) -> dict[str, object]:
    return {
        "lab": lab.name,
        "snapshot": {"id": done.manifest.id, "name": done.manifest.name},
        "automatic": {"id": done.auto.id, "name": done.auto.name} if done.auto else None,
        "nodes": done.nodes,
        "running": done.running,
        "verified": done.verification.full,
        "ready_seconds": round(done.ready, 3),
        "seconds": {part: round(took, 3) for part, took in done.seconds.items()},
        "verified_after": {what: round(after, 3) for what, after in done.asked.items()},
        "leases_missing": late,
        "warnings": done.warnings,
    }
