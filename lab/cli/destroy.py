"""klab destroy"""

from __future__ import annotations

import sys

import click

from lab.errors import UsageError


@click.command()
@click.argument("lab", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--keep-snapshots", is_flag=True, help="Write the snapshots taken by hand into files first.")
def command(lab: str | None, yes: bool, keep_snapshots: bool) -> None:
    """Remove a lab: its machines, disks, networks, snapshots and files.

    With --keep-snapshots each snapshot that was taken by hand is first written into a checkpoint
    in klab's home, which klab create --from makes a lab of: its disks, not its RAM, so the nodes
    boot, as after a power failure where the lab ran. The lab's keys go with it. The box stays in
    the store for it. klab checkpoints lists the files. If one cannot be written, the lab is left
    as it is.

    \b
    Examples:
      klab destroy
      klab destroy -y 1m2w
      klab destroy --keep-snapshots 1m2w
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
        if keep_snapshots:
            snapshots = ", once its snapshots are written into files,"
        click.confirm(f"Remove lab {found.name} ({nodes}){snapshots} and everything on it?", abort=True)
    if keep_snapshots:
        from lab.cli.checkpoint_flow import run_keep

        found.enter(changes=True)
        run_keep(found)
    # Whatever was left unfinished goes with the rest.
    found.reach()
    remove(found.home, found.folder, found.plan, open_machines, lambda _line: None)
    note(f"{found.name} is gone")
