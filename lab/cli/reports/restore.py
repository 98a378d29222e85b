"""What klab restore prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lab.app import snapshots
from lab.app.labs import enter
from lab.cli.reports.snapshots import parts_of
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.cli.terminal.words import seconds_in
from lab.errors import ClusterError

if TYPE_CHECKING:
    from lab.cluster.lab import Lab
    from lab.snapshots.restore import Restored


def run_restore(
    lab: Lab, name: str | None, *, node: str | None, keep: bool, timeout: str | None, as_json: bool
) -> None:
    """Restore a lab, print how it went, then watch the leases."""
    limit = seconds_in(timeout)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, nodes=[node] if node else None, first="check") as listener:
        done = snapshots.restore(lab, name, node=node, keep=keep, timeout=limit, listener=listener)
    if not as_json:
        _report(lab, done)
    late = snapshots.leases(done)
    if as_json:
        echo(json.dumps(_result(lab, done, late)))
    if late:
        raise ClusterError(
            f"{lab.name} is restored, but not every node has renewed its lease since",
            details=late,
            hint=f"klab doctor {lab.name} shows what is wrong and what repairs it",
        )
    if not as_json and done.verification.full:
        note(f"every node's lease was renewed after another {elapsed(done.seconds['leases'])}")


def _report(lab: Lab, done: Restored) -> None:
    who = lab.name if len(done.nodes) == len(lab.plan.nodes) else ", ".join(done.nodes)
    running = "Ready" if done.verification.full else "up"
    state = running if done.running else "off, as it was"
    note(f"{who} is restored to {done.manifest.name} and {state} after {elapsed(done.ready)}")
    inner = {f"  {what}": after for what, after in done.asked.items()}
    parts = [each for part, took in done.seconds.items() for each in ((part, took), *_within(part, inner))]
    for line in parts_of(dict(parts)):
        note(line)
    if done.auto is not None:
        name = done.auto.name
        note(f"the state before is kept as {name}; klab restore {lab.name} {name} restores it")
    for line in done.warnings:
        note(line)


def _within(part: str, asked: dict[str, float]) -> list[tuple[str, float]]:
    """What was asked for in a part, all of it at once."""
    return list(asked.items()) if part == "verify" else []


def _result(lab: Lab, done: Restored, late: list[str]) -> dict[str, object]:
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
