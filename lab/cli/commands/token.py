"""klab token"""

from __future__ import annotations

from dataclasses import asdict

import click

from lab.cli.terminal.numbers import Number

TEN_YEARS = 10 * 365 * 24


@click.command()
@click.argument("lab", required=False)
@click.option("--hours", type=Number(min=0, min_open=True, max=TEN_YEARS), default=24, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(lab: str | None, hours: float, as_json: bool) -> None:
    """Make a fresh bootstrap token and print the kubeadm command that joins with it.

    \b
    Examples:
      klab token
      klab token 1m2w --hours 2
    """
    from lab.app import tokens
    from lab.app.labs import Labs, enter
    from lab.cli.terminal.output import echo, echo_json, note

    found = Labs().find(lab)
    tokens.refuse_tokens(found)
    enter(found, changes=True, note=note)
    made = tokens.make_token(found, hours)
    if as_json:
        echo_json({"lab": found.name, **asdict(made)})
    else:
        echo(made.command)
