"""klab upgrade"""

from __future__ import annotations

import click


@click.command()
@click.argument("lab", required=False)
@click.option("--to", required=True, metavar="VERSION", help="Version, such as 1.36.3; 1.36 is its newest patch.")
@click.option("--prepare", is_flag=True, help="Only put the packages and images on the nodes, for an upgrade by hand.")
@click.option("--no-snapshot", is_flag=True, help="Do not take a snapshot first.")
@click.option("--timeout", metavar="DURATION", help="Time limit, such as 40m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(lab: str | None, to: str, prepare: bool, no_snapshot: bool, timeout: str | None, as_json: bool) -> None:
    """Upgrade a lab's Kubernetes by kubeadm: to a later patch, or to the next minor version.

    A snapshot comes first. Then each node in turn, control planes before workers: kubeadm upgrade,
    drain, the new kubelet, uncordon. Nothing is downloaded: programs and images come from the
    box of that version (klab box build --kubernetes VERSION).

    After a failure or Ctrl-C the same command continues; klab restore brings the snapshot back.

    \b
    Examples:
      klab upgrade --to 1.36
      klab upgrade ha-3m2w --to 1.36.3 --timeout 1h
      klab upgrade --to 1.36 --prepare      then apt-get and kubeadm by hand, as in a lesson
    """
    from lab.app.labs import Labs
    from lab.cli.reports.upgrade import run_prepare, run_upgrade

    found = Labs().find(lab)
    if prepare:
        run_prepare(found, to, timeout=timeout, as_json=as_json)
    else:
        run_upgrade(found, to, keep=not no_snapshot, timeout=timeout, as_json=as_json)
