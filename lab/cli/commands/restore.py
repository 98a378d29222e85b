"""klab restore"""

from __future__ import annotations

import click

from lab.errors import UsageError


@click.command()
@click.argument("snapshots", nargs=-1, metavar="[LAB] [NAME]")
@click.option("--node", metavar="NODE", help="Restore this worker only.")
@click.option("--no-save", is_flag=True, help="Take no automatic snapshot before: the present state is lost.")
@click.option("--timeout", metavar="DURATION", help="Time limit until the lab is Ready, such as 10m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(snapshots: tuple[str, ...], node: str | None, no_save: bool, timeout: str | None, as_json: bool) -> None:
    """Restore a lab from a snapshot; without NAME from the last that was taken by hand.

    klab first saves the present state as an automatic snapshot; the last few of those are kept.
    Then it reverts all nodes at once, sets their clocks, and waits until the lab works: every
    node is Ready and its kubelet answers, etcd's members agree, and DNS answers on every
    node. Certificates that have expired since are renewed.

    The snapshot is checked before anything is touched. After a later failure, or Ctrl-C, the lab
    is as it was before. Exit code 9 when a node does not renew its lease afterwards.

    \b
    Examples:
      klab restore
      klab restore lesson-1
      klab restore ha-3m2w lesson-1 --no-save
      klab restore lesson-1 --node w2
    """
    from lab.cli.reports.restore import run_restore
    from lab.cli.terminal.words import lab_then

    lab, names = lab_then(snapshots)
    if len(names) > 1:
        raise UsageError(f"one snapshot at a time, not {len(names)}", hint=f"klab snapshots {lab.name} lists them")
    if node is not None:
        lab.plan.known(node)
    run_restore(lab, names[0] if names else None, node=node, keep=not no_save, timeout=timeout, as_json=as_json)
