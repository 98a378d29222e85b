"""klab destroy"""

from __future__ import annotations

import sys

import click

from lab.errors import UsageError


@click.command()
@click.argument("lab", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(lab: str | None, yes: bool) -> None:
    """Remove a lab: its machines, disks, networks, snapshots and files.

    \b
    Examples:
      klab destroy
      klab destroy -y 1m2w
    """
    from lab.cli.opening import find_lab
    from lab.cli.output import note
    from lab.cluster.destroy import destroy as remove
    from lab.machines import open_machines
    from lab.snapshots.shelf import Shelf

    found = find_lab(lab)
    if not yes:
        nodes = ", ".join(n.name for n in found.plan.nodes)
        if not sys.stdin.isatty():
            raise UsageError("destroy asks before it removes a lab, and there is nobody to ask", hint="add -y")
        kept = len(Shelf(found.folder).manifests())
        snapshots = {0: "", 1: ", its snapshot"}.get(kept, f", its {kept} snapshots")
        click.confirm(f"Remove lab {found.name} ({nodes}){snapshots} and everything on it?", abort=True)
    # Whatever was left unfinished goes with the rest.
    found.reach()
    remove(found.home, found.folder, found.plan, open_machines, lambda _line: None)
    note(f"{found.name} is gone")
