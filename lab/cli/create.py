"""klab create"""

from __future__ import annotations

import click

from lab.errors import Interrupted


@click.command()
@click.argument("scenario")
@click.option("--name", help="Name of the lab; the scenario's own when left out.")
@click.option("--provider", type=click.Choice(["auto", "libvirt", "virtualbox"]), default="auto", show_default=True)
@click.option("--seat", type=click.IntRange(min=0), default=0, help="The student's number: addresses derive from it.")
@click.option("--timeout", metavar="DURATION", help="How long it may take, such as 20m or 1h30m.")
@click.option("--json", "as_json", is_flag=True, help="Events and result as JSON, one object a line.")
def command(scenario: str, name: str | None, provider: str, seat: int, timeout: str | None, as_json: bool) -> None:
    """Create a lab from a scenario and wait until it is Ready.

    SCENARIO is the name of a shipped scenario (klab scenarios lists them) or a path.
    Running it again goes on where an earlier run stopped.

    \b
    Examples:
      klab create 1m2w
      klab create ./lesson3.yaml --name lesson3
      klab create 1m2w --timeout 20m --json
    """
    from lab.cli.create_flow import run_create

    try:
        run_create(scenario, name=name, provider=provider, seat=seat, timeout=timeout, as_json=as_json)
    except KeyboardInterrupt:
        raise Interrupted(
            "stopped; the machines made so far are still there",
            hint=f"klab create {scenario} again goes on from here; klab destroy removes it",
        ) from None
