"""What klab start, stop and reboot do; apart from the commands so that `klab --help` stays quick."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from lab.cli.opening import OpenLab, lab_then
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.progress import elapsed, show
from lab.cli.terminal.words import seconds_in
from lab.cluster.acts.power import Power
from lab.cluster.lab import Lab
from lab.errors import Interrupted
from lab.scenario.rules import quorum


def run_power(
    words: tuple[str, ...], act: Callable[[Lab, Sequence[str]], Power], *, timeout: str | None, as_json: bool
) -> None:
    """Everything from the words on the command line ([LAB] [NODE...]) to the last line printed."""
    limit = seconds_in(timeout)
    lab, names = lab_then(words)
    for name in names:
        lab.node(name)
    lab.enter(changes=True)
    try:
        with show(lab.plan, as_json=as_json, nodes=names or None) as listener:
            power = act(lab.lab(limit, listener), names)
    except KeyboardInterrupt:
        raise Interrupted("stopped half-way", hint="klab status shows what runs; the same command goes on") from None
    if as_json:
        echo(json.dumps({"lab": lab.name, **asdict(power)}))
    else:
        _report(lab, power)


def _report(lab: OpenLab, power: Power) -> None:
    running, planes = set(power.running), [n.name for n in lab.plan.control_planes]
    if not running:
        note(f"{lab.name} is off after {elapsed(power.seconds)}; klab start {lab.name} brings it back")
    elif power.lost_quorum:
        answer = sum(name in running for name in planes)
        off = next(name for name in planes if name not in running)
        note(
            f"{answer} of {len(planes)} control planes run, {quorum(len(planes))} are needed: etcd has lost its "
            f"quorum, and the API server cannot answer; klab start {lab.name} {off} brings one back"
        )
    elif running >= set(power.nodes):
        word = "Ready" if lab.plan.bootstrap == "full" else "up"
        note(f"{lab.name if len(power.nodes) > 1 else power.nodes[0]} is {word} after {elapsed(power.seconds)}")
    else:
        note(f"{', '.join(n for n in power.nodes if n not in running)} off after {elapsed(power.seconds)}")
