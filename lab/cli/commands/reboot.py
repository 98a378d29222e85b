"""klab reboot"""

from __future__ import annotations

from functools import partial

import click


@click.command()
@click.argument("words", nargs=-1, metavar="[LAB] [NODE...]")
@click.option("--force", is_flag=True, help="Cut the power instead of shutting down.")
@click.option("--timeout", metavar="DURATION", help="Time limit for each half, shutdown and start, such as 20m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(words: tuple[str, ...], force: bool, timeout: str | None, as_json: bool) -> None:
    """Reboot a lab, or some of its nodes, all at once, and wait until it is Ready.

    \b
    Examples:
      klab reboot
      klab reboot 1m2w w1
    """
    from lab.app.power import reboot
    from lab.cli.reports.power import run_power

    run_power(words, partial(reboot, force=force), timeout=timeout, as_json=as_json)
