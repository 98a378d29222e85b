"""klab destroy"""

from __future__ import annotations

import json
import sys

import click

from lab.errors import UsageError


@click.command()
@click.argument("lab", required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--keep-snapshots", is_flag=True, help="First export the snapshots taken by hand to bundles.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(lab: str | None, yes: bool, keep_snapshots: bool, as_json: bool) -> None:
    """Remove a lab: its machines, disks, networks, snapshots and files.

    With --keep-snapshots klab first exports each snapshot that was taken by hand to a bundle in
    its home, from which klab import creates a lab. A bundle has the disks, not the RAM, so the
    nodes boot as after a power failure if the lab ran; and it has the lab's keys. The box stays
    in the store. klab bundles lists the files. If an export fails, the lab is left as it is.

    \b
    Examples:
      klab destroy
      klab destroy -y 1m2w
      klab destroy --keep-snapshots 1m2w
    """
    from lab.app.destroy import count_snapshots, destroy
    from lab.app.labs import Labs, enter
    from lab.cli.terminal.output import echo, note
    from lab.reminder import repeating

    found = Labs().find(lab)
    if not yes:
        nodes = ", ".join(n.name for n in found.plan.nodes)
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(
                "klab destroy asks before it removes a lab, and standard input is not a terminal", hint="add -y"
            )
        count = count_snapshots(found)
        snapshots = {0: "", 1: ", its snapshot"}.get(count, f", its {count} snapshots")
        if keep_snapshots:
            snapshots = ", once its snapshots are written into files,"
        click.confirm(f"Remove lab {found.name} ({nodes}){snapshots} and everything on it?", abort=True, err=True)
    kept = []
    if keep_snapshots:
        from lab.cli.reports.bundles import run_keep

        enter(found, changes=True, note=note)
        kept = run_keep(found, as_json=as_json)
    with repeating(note) as tell:
        if not as_json:
            tell(f"removing {found.name} ...")
        destroy(found)
    if as_json:
        echo(json.dumps({"lab": found.name, "kept": kept}))
    else:
        note(f"{found.name} is gone")
