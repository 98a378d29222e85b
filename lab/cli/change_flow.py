"""What klab scale and klab node do; apart from the commands so that `klab --help` stays quick."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from lab.boxes.kubectl import kubectl_for
from lab.boxes.store import Box, box_of, find_box, vagrant_box
from lab.cli.opening import OpenLab
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.progress import elapsed, show
from lab.cli.terminal.words import seconds_in
from lab.cluster.acts.scale import Change, Changed
from lab.errors import BoxError, HostError, Interrupted
from lab.host.capacity import check_room, host_facts
from lab.plan.model import Node, Plan


def run_change(
    lab: OpenLab,
    act: Callable[[Change], Changed],
    *,
    timeout: str | None,
    as_json: bool,
    allow_even: bool = False,
) -> None:
    """From the lab and what is to be done with it to the last line printed."""
    limit = seconds_in(timeout)
    lab.enter(changes=True)
    box = _box(lab)
    with show(lab.plan, as_json=as_json) as listener:
        change = Change(
            lab=lab.lab(limit, listener),
            box=vagrant_box(lab.home, box, lab.record.provider) if box else None,
            kubectl=kubectl_for(lab.home, lab.record.box, lab.plan.kubernetes.version),
            fits=lambda plan, nodes: _refuse_what_does_not_fit(lab, plan, nodes),
            allow_even=allow_even,
        )
        try:
            changed = act(change)
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped half-way; the lab runs on", hint="the same command again goes on; klab status shows the lab"
            ) from None
    if as_json:
        nodes = [{"name": n.name, "role": n.role, "address": str(n.address)} for n in changed.plan.nodes]
        result = {"lab": lab.name, "joined": changed.joined, "left": changed.left, "nodes": nodes}
        echo(json.dumps({**result, "seconds": round(changed.seconds, 1)}))
    else:
        note(_summary(lab, changed))


def _summary(lab: OpenLab, changed: Changed) -> str:
    parts = [
        f"{', '.join(names)} {word}" for names, word in ((changed.joined, "joined"), (changed.left, "left")) if names
    ]
    roles = [("control plane", len(changed.plan.control_planes)), ("worker", len(changed.plan.workers))]
    now = " and ".join(f"{count} {role}{'' if count == 1 else 's'}" for role, count in roles)
    if not parts:
        return f"{lab.name} has {now} already"
    return f"{'; '.join(parts)} after {elapsed(changed.seconds)}: {lab.name} has {now}"


def _box(lab: OpenLab) -> Box | None:
    """The box the lab was made from, or one that fits; None where there is none (nodes can still leave)."""
    if box := box_of(lab.home, lab.record.box):
        return box
    try:
        return find_box(lab.home, lab.plan.box, lab.plan.kubernetes.version)
    except BoxError:
        return None


def _refuse_what_does_not_fit(lab: OpenLab, plan: Plan, nodes: Sequence[Node]) -> None:
    problems = check_room(nodes, host_facts(lab.home))
    if problems:
        names = ", ".join(n.name for n in nodes)
        raise HostError(
            f"{names} would not fit on this machine beside what runs here",
            details=problems,
            hint=f"klab list shows what else runs here; {plan.name} is as it was",
        )
