"""klab export"""

from __future__ import annotations

from pathlib import Path

import click

from lab.errors import UsageError


@click.command()
@click.argument("lab_and_name", nargs=-1, metavar="[LAB] NAME")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The file to write; NAME.klab in this folder when left out.",
)
@click.option("--without-box", is_flag=True, help="Leave the box out, for people who have it already.")
@click.option(
    "--sign",
    metavar="KEY",
    type=click.Path(path_type=Path),
    help="Sign it with this OpenSSH key, so that others can see who it is from.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(
    lab_and_name: tuple[str, ...],
    output: Path | None,
    without_box: bool,
    sign: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export a stopped lab to a bundle: one file from which anyone can create the same lab.

    The file holds the nodes' disks, the box that they are based on, and the lab's private keys and
    certificates: anyone who has the file is an administrator of every lab that is made from it.
    RAM is not in it, so the lab must be off (klab stop).

    klab import FILE makes the lab, on this machine or another. The file appears under its name
    only when it is whole.

    \b
    Examples:
      klab stop && klab export lesson-3
      klab export 1m2w lesson-3 -o /srv/course/lesson-3.klab
      klab export lesson-3 --without-box
      klab export lesson-3 --sign ~/.ssh/id_ed25519
    """
    from lab.app.bundles import Export
    from lab.cli.reports.bundles import run_export
    from lab.cli.terminal.words import lab_then

    lab, names = lab_then(lab_and_name)
    if len(names) != 1:
        raise UsageError(
            "a bundle needs one name" if names else "the bundle needs a name",
            hint=f"klab export {lab.name} lesson-3",
        )
    wanted = Export(names[0], output, with_box=not without_box, key=sign, replaces=force)
    run_export(lab, wanted, as_json=as_json)
