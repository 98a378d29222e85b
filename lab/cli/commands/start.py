"""klab start"""

from __future__ import annotations

import click


@click.command()
@click.argument("words", nargs=-1, metavar="[LAB] [NODE...]")
@click.option("--timeout", metavar="DURATION", help="Time limit until the lab is Ready, such as 20m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(words: tuple[str, ...], timeout: str | None, as_json: bool) -> None:
    """Start a stopped lab, or some of its nodes, and wait until it is Ready.

    It does not matter how the lab went off: stopped, a power failure, the host restarted.

    \b
    Examples:
      klab start
      klab start ha-3m2w cp2
    """
    from lab.app.power import start
    from lab.cli.reports.power import run_power

    run_power(words, start, timeout=timeout, as_json=as_json)
