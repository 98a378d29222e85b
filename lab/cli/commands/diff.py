"""klab diff"""

from __future__ import annotations

import click

from lab.errors import UsageError


@click.command()
@click.argument("snapshots", nargs=-1, metavar="[LAB] NAME [NAME]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(snapshots: tuple[str, ...], as_json: bool) -> None:
    """Show which Kubernetes objects differ between two snapshots, or a snapshot and now.

    Namespaced objects, by kind and name: + is only in the second, - only in the first, ~ in
    both but not alike. Their status does not count, nor do events and leases. klab keeps no
    object, only a digest of each: what changed inside is not shown, least of all in a Secret.

    \b
    Examples:
      klab diff lesson-1
      klab diff lesson-1 lesson-2
      klab diff ha-3m2w lesson-1 --json
    """
    from lab.cli.reports.snapshots import run_diff
    from lab.cli.terminal.words import lab_then

    lab, names = lab_then(snapshots)
    if not 1 <= len(names) <= 2:
        raise UsageError(
            "a snapshot is needed" if not names else f"two snapshots at most, not {len(names)}",
            hint=f"klab snapshots {lab.name} lists them",
        )
    run_diff(lab, names[0], names[1] if len(names) == 2 else None, as_json=as_json)
