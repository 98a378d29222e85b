"""What klab scale and klab node print."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lab.app.labs import enter
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.cli.terminal.words import seconds_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.cluster.acts.scale import Changed
    from lab.cluster.events import Listener
    from lab.cluster.lab import Lab


class Act(Protocol):
    """A function of lab.app.scale, its other options given."""

    def __call__(self, lab: Lab, *, timeout: float | None, listener: Listener) -> Changed: ...


class NodeAct(Protocol):
    """A function of lab.app.scale that is about one node of the lab."""

    def __call__(self, lab: Lab, name: str, *, timeout: float | None, listener: Listener) -> Changed: ...


def run_change(lab: Lab, act: Act, *, timeout: str | None, as_json: bool) -> None:
    """Change a lab, and print the result."""
    _run(lab, act, _summary, timeout=timeout, as_json=as_json)


def run_reset(lab: Lab, name: str, act: NodeAct, *, timeout: str | None, as_json: bool) -> None:
    """Let a node leave its cluster, and print what it is now."""
    _run(lab, partial(act, name=name), _reset, timeout=timeout, as_json=as_json, nodes=[name], first="drain")


def run_join(lab: Lab, name: str, act: NodeAct, *, timeout: str | None, as_json: bool) -> None:
    """Let a node join its cluster again, and print the result."""

    def say(lab: Lab, changed: Changed) -> str:
        if not changed.joined:
            return f"{name} is a member of {lab.name} already"
        return f"{name} joined {lab.name} after {elapsed(changed.seconds)}"

    _run(lab, partial(act, name=name), say, timeout=timeout, as_json=as_json, nodes=[name], first="reset")


def _run(
    lab: Lab,
    act: Act,
    say: Callable[[Lab, Changed], str],
    *,
    timeout: str | None,
    as_json: bool,
    nodes: Sequence[str] | None = None,
    first: str = "boot",
) -> None:
    """Run an act and print its result: as JSON, or as `say` words it; the rest is `show`'s."""
    limit = seconds_in(timeout)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, nodes=nodes, first=first) as listener:
        changed = act(lab, timeout=limit, listener=listener)
    if as_json:
        found = [{"name": n.name, "role": n.role, "address": str(n.address)} for n in changed.plan.nodes]
        result = {"lab": lab.name, "joined": changed.joined, "left": changed.left, "nodes": found}
        echo(json.dumps({**result, "seconds": round(changed.seconds, 1)}))
    else:
        note(say(lab, changed))


def _reset(lab: Lab, changed: Changed) -> str:
    from lab.cluster.observe.facts import no_member

    return "\n".join(
        (
            *(
                f"{name} was reset after {elapsed(changed.seconds)}: {no_member(lab.name, name)}"
                for name in changed.left
            ),
            f"by hand: klab token {lab.name} prints the command, to be run as root on the node",
        )
    )


def _summary(lab: Lab, changed: Changed) -> str:
    parts = [
        f"{', '.join(names)} {word}" for names, word in ((changed.joined, "joined"), (changed.left, "left")) if names
    ]
    roles = [("control plane", len(changed.plan.control_planes)), ("worker", len(changed.plan.workers))]
    now = " and ".join(f"{count} {role}{'' if count == 1 else 's'}" for role, count in roles)
    if not parts:
        return f"{lab.name} has {now} already"
    return f"{'; '.join(parts)} after {elapsed(changed.seconds)}: {lab.name} has {now}"
