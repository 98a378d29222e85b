"""klab stop"""

from __future__ import annotations

from functools import partial

import click


@click.command()
@click.argument("words", nargs=-1, metavar="[LAB] [NODE...]")
@click.option("--force", is_flag=True, help="Cut the power instead of shutting down.")
@click.option("--timeout", metavar="DURATION", help="Time limit for the shutdown, such as 90s or 5m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(words: tuple[str, ...], force: bool, timeout: str | None, as_json: bool) -> None:
    """Shut down a lab, or some of its nodes. Nothing is lost; klab start starts it again.

    \b
    Examples:
      klab stop
      klab stop ha-3m2w cp2
      klab stop --force w1          as a power failure would
    """
    from lab.app.power import stop
    from lab.cli.reports.power import run_power

    run_power(words, partial(stop, force=force), timeout=timeout, as_json=as_json)
