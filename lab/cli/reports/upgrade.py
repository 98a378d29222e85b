"""What klab upgrade prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from lab.app import upgrade
from lab.app.labs import enter
from lab.cli.terminal.output import echo, note
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.cli.terminal.words import seconds_in

if TYPE_CHECKING:
    from lab.cluster.lab import Lab


def run_upgrade(lab: Lab, to: str, *, keep: bool, timeout: str | None, as_json: bool) -> None:
    """Upgrade a lab, and print the result."""
    limit = seconds_in(timeout)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="waits") as listener:
        done = upgrade.upgrade(lab, to, keep=keep, timeout=limit, listener=listener)
    if as_json:
        echo(json.dumps({"lab": lab.name, **asdict(done), "seconds": round(done.seconds, 1)}))
    elif not done.nodes:
        note(f"{lab.name} has Kubernetes {done.after} already, and is Ready")
    else:
        back = f"; klab restore {lab.name} {done.snapshot} takes it back" if done.snapshot else ""
        note(f"{lab.name} has Kubernetes {done.after} and is Ready after {elapsed(done.seconds)}{back}")


def run_prepare(lab: Lab, to: str, *, timeout: str | None, as_json: bool) -> None:
    """Put the packages of a version on a lab's nodes, and print what a person does then."""
    limit = seconds_in(timeout)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="waits") as listener:
        version, commands = upgrade.prepare(lab, to, timeout=limit, listener=listener)
    if as_json:
        echo(json.dumps({"lab": lab.name, "version": version, "commands": commands}))
        return
    note(f"every node of {lab.name} has the packages and images of Kubernetes {version}. By hand, in this order:")
    for line in commands:
        echo(line)
    note(f"afterwards klab upgrade {lab.name} --to {version} looks whether all is done, and remembers the version")
