"""klab list"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lab.store import LabFolder


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """List the labs on this machine.

    \b
    Examples:
      klab list
      klab list --json
    """
    from lab.cli.terminal.output import echo, echo_json, note, table
    from lab.store import Home

    labs = [_describe(folder) for folder in Home.default().existing()]
    if as_json:
        echo_json(labs)
    elif not labs:
        note("there is no lab yet; klab create 1m2w makes one")
    else:
        for lab in labs:
            lab["nodes"] = " ".join(lab["nodes"])
            lab["created"] = time.strftime("%Y-%m-%d %H:%M", time.localtime(lab["created"])) if lab["created"] else ""
        echo(table(list(labs[0]), [[str(value) for value in lab.values()] for lab in labs]))


def _describe(folder: LabFolder) -> dict[str, Any]:
    """One lab; a damaged one is listed too, so that a person sees what to destroy."""
    from lab.errors import LabError
    from lab.plan.file import read

    found: dict[str, Any] = {
        "name": folder.name,
        "scenario": "",
        "provider": "",
        "phase": "damaged",
        "nodes": [],
        "created": 0,
    }
    try:
        record = folder.record()
        plan = read(folder.path / "plan.json")
    except LabError:
        return found
    return found | {
        "scenario": plan.scenario,
        "provider": record.provider,
        "phase": record.phase,
        "nodes": [node.name for node in plan.nodes],
        "created": record.created,
    }
