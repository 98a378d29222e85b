"""What klab start, stop and reboot print."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from lab.app.labs import enter
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.cli.terminal.words import lab_then, seconds_in
from lab.scenario.rules import quorum

if TYPE_CHECKING:
    from lab.cluster.acts.power import PowerResult
    from lab.cluster.events import Listener
    from lab.cluster.lab import Lab


class Act(Protocol):
    """A function of lab.app.power, its other options given."""

    def __call__(self, lab: Lab, nodes: list[str], *, timeout: float | None, listener: Listener) -> PowerResult: ...


def run_power(words: tuple[str, ...], act: Act, *, timeout: str | None, as_json: bool) -> None:
    """Act on [LAB] [NODE...], and print the result."""
    limit = seconds_in(timeout)
    lab, names = lab_then(words)
    for name in names:
        lab.plan.known(name)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, nodes=names or None) as listener:
        power = act(lab, names, timeout=limit, listener=listener)
    if as_json:
        echo(json.dumps({"lab": lab.name, **asdict(power)}))
    else:
        _report(lab, power)


def _report(lab: Lab, power: PowerResult) -> None:
    running, planes = set(power.running), [n.name for n in lab.plan.control_planes]
    if not running:
        note(f"{lab.name} is off after {elapsed(power.seconds)}; klab start {lab.name} starts it")
    elif power.lost_quorum:
        answer = sum(name in running for name in planes)
        off = next(name for name in planes if name not in running)
        note(
            f"{answer} of {len(planes)} control planes run, {quorum(len(planes))} are needed: etcd has lost its "
            f"quorum, and the API server cannot answer; klab start {lab.name} {off} starts one of them"
        )
    elif running >= set(power.nodes):
        word = "Ready" if lab.plan.bootstrap == "full" else "up"
        note(f"{lab.name if len(power.nodes) > 1 else power.nodes[0]} is {word} after {elapsed(power.seconds)}")
    else:
        note(f"{', '.join(n for n in power.nodes if n not in running)} off after {elapsed(power.seconds)}")
