"""klab list"""

from __future__ import annotations

import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lab.app.labs import Summary


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """List the labs on this machine.

    \b
    Examples:
      klab list
      klab list --json
    """
    from lab.app.labs import Labs
    from lab.cli.terminal.output import echo, echo_json, note, table

    labs = Labs().summaries()
    if as_json:
        echo_json([asdict(lab) for lab in labs])
    elif not labs:
        note("there is no lab yet; klab create 1m2w makes one")
    else:
        headers = [field.name for field in fields(labs[0])]
        echo(table(headers, [_row(lab) for lab in labs]))


def _row(lab: Summary) -> list[str]:
    created = time.strftime("%Y-%m-%d %H:%M", time.localtime(lab.created)) if lab.created else ""
    return [lab.name, lab.scenario, lab.provider, lab.phase, " ".join(lab.nodes), created]
