"""What klab scale and klab node print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

from lab.app.labs import enter
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.progress import elapsed, show
from lab.cli.terminal.words import seconds_in

if TYPE_CHECKING:
    from lab.cluster.acts.scale import Changed
    from lab.cluster.events import Listener
    from lab.cluster.lab import Lab


class Act(Protocol):
    """A function of lab.app.scale, its other options given."""

    def __call__(self, lab: Lab, *, timeout: float | None, listener: Listener) -> Changed: ...


def run_change(lab: Lab, act: Act, *, timeout: str | None, as_json: bool) -> None:
    """Change a lab, and print the result."""
    limit = seconds_in(timeout)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json) as listener:
        changed = act(lab, timeout=limit, listener=listener)
    if as_json:
        nodes = [{"name": n.name, "role": n.role, "address": str(n.address)} for n in changed.plan.nodes]
        result = {"lab": lab.name, "joined": changed.joined, "left": changed.left, "nodes": nodes}
        echo(json.dumps({**result, "seconds": round(changed.seconds, 1)}))
    else:
        note(_summary(lab, changed))


def _summary(lab: Lab, changed: Changed) -> str:
    parts = [
        f"{', '.join(names)} {word}" for names, word in ((changed.joined, "joined"), (changed.left, "left")) if names
    ]
    roles = [("control plane", len(changed.plan.control_planes)), ("worker", len(changed.plan.workers))]
    now = " and ".join(f"{count} {role}{'' if count == 1 else 's'}" for role, count in roles)
    if not parts:
        return f"{lab.name} has {now} already"
    return f"{'; '.join(parts)} after {elapsed(changed.seconds)}: {lab.name} has {now}"
