"""klab bundles"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """List the bundles that klab destroy --keep-snapshots has kept, or show what is in some files.

    Exit code 2 when one of the files is not a bundle or is damaged, 3 when there is no such file.

    \b
    Examples:
      klab bundles
      klab bundles lesson-3.klab --json
    """
    from lab.cli.reports.bundles import run_list

    run_list(files, as_json=as_json)
