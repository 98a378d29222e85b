"""klab snapshots"""

from __future__ import annotations

import click


@click.command()
@click.argument("lab", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with everything that a manifest holds.")
def command(lab: str | None, as_json: bool) -> None:
    """List a lab's snapshots as a tree: each below the one that it was taken on.

    The lab is based on the one with the asterisk: the last that was taken or restored. The size
    is what a snapshot takes on disk beyond those it is based on.

    \b
    Examples:
      klab snapshots
      klab snapshots ha-3m2w --json
    """
    from lab.app.labs import Labs
    from lab.cli.reports.snapshots import run_list

    run_list(Labs().find(lab), as_json=as_json)
