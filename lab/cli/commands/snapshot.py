"""klab snapshot: take, verify, rm, rename, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lab.cli.terminal.groups import DefaultGroup
from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.cluster.lab import Lab

_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group(cls=DefaultGroup, default="take", subcommand_metavar="[LAB] [NAME] | COMMAND [ARGUMENTS]...")
def command() -> None:
    """Take a snapshot of a whole lab: every node's RAM and disk, all or nothing.

    Without a subcommand a snapshot is taken; klab restore restores the lab from it, klab snapshots
    lists them. klab snapshot take --help shows the options.

    \b
    Examples:
      klab snapshot
      klab snapshot lesson-1 --note "before the first exercise"
      klab snapshot verify
      klab snapshot rm lesson-1
      klab snapshot prune --keep 3
    """


@command.command()
@click.argument("lab_and_name", nargs=-1, metavar="[LAB] [NAME]")
@click.option("--note", default="", metavar="TEXT", help="A line of text that klab snapshots shows.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def take(lab_and_name: tuple[str, ...], note: str, as_json: bool) -> None:
    """Take a snapshot; without NAME its name is the time.

    All nodes are paused within a moment of each other, saved side by side and resumed; what
    runs in the cluster does not notice. Of a lab that is off, the disks are saved. After
    a failure, or Ctrl-C, nothing of the snapshot is left and the lab runs as before.

    \b
    Examples:
      klab snapshot
      klab snapshot lesson-1
      klab snapshot ha-3m2w lesson-1 --note "before etcd is broken"
    """
    from lab.cli.reports.snapshots import run_take
    from lab.cli.terminal.words import lab_then

    lab, rest = lab_then(lab_and_name)
    if len(rest) > 1:
        raise UsageError(
            f"a snapshot has one name, not {len(rest)}", hint='klab snapshot NAME --note "more than one word"'
        )
    run_take(lab, rest[0] if rest else None, text=note, as_json=as_json)


@command.command()
@click.argument("snapshots", nargs=-1, metavar="[LAB] [NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def verify(snapshots: tuple[str, ...], as_json: bool) -> None:
    """Check every byte of snapshots; without NAME of all snapshots.

    Each RAM image and each layer of a disk is read again and compared with the manifests, including
    those that klab restore trusts because their size and times are the same. The lab may run
    meanwhile, but cannot be changed. If something is damaged, it is named with the snapshots that
    need it, and the exit code is 1.

    \b
    Examples:
      klab snapshot verify
      klab snapshot verify lesson-1
      klab snapshot verify ha-3m2w lesson-1 lesson-2 --json
    """
    from lab.cli.reports.snapshots import run_verify
    from lab.cli.terminal.words import lab_then

    run_verify(*lab_then(snapshots), as_json=as_json)


@command.command()
@click.argument("snapshots", nargs=-1, metavar="[LAB] NAME...")
@_JSON
def rm(snapshots: tuple[str, ...], as_json: bool) -> None:
    """Remove snapshots; those based on them stay intact.

    A name is one that klab snapshots shows. One whose manifest is damaged has an id only.

    \b
    Examples:
      klab snapshot rm lesson-1
      klab snapshot rm 1m2w lesson-1 lesson-2
    """
    from lab.cli.reports.snapshots import run_remove
    from lab.cli.terminal.words import lab_then

    lab, names = lab_then(snapshots)
    if not names:
        raise _which(lab)
    run_remove(lab, names, as_json=as_json)


@command.command()
@click.argument("snapshots", nargs=-1, metavar="[LAB] NAME NEW")
@_JSON
def rename(snapshots: tuple[str, ...], as_json: bool) -> None:
    """Rename a snapshot. An automatic one is then kept for good.

    \b
    Examples:
      klab snapshot rename 20261121-161500 lesson-1
      klab snapshot rename 1m2w auto-20261121-170000 nearly-done
    """
    from lab.cli.reports.snapshots import run_rename
    from lab.cli.terminal.words import lab_then

    lab, names = lab_then(snapshots)
    if not names:
        raise _which(lab)
    if len(names) != 2:
        raise UsageError("a snapshot's name and its new one are needed", hint="klab snapshot rename NAME NEW")
    run_rename(lab, names[0], names[1], as_json=as_json)


@command.command()
@click.argument("lab", required=False)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    metavar="N",
    required=True,
    help="Number of snapshots taken by hand that are kept.",
)
@_JSON
def prune(lab: str | None, keep: int, as_json: bool) -> None:
    """Remove all but the newest N snapshots, and all automatic ones.

    \b
    Examples:
      klab snapshot prune --keep 3
      klab snapshot prune 1m2w --keep 0
    """
    from lab.app.labs import Labs
    from lab.cli.reports.snapshots import run_prune

    run_prune(Labs().find(lab), keep, as_json=as_json)


def _which(lab: Lab) -> UsageError:
    return UsageError("a snapshot is needed", hint=f"klab snapshots {lab.name} lists them")
