"""klab node"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import click

from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.cluster.lab import Lab
    from lab.scenario.model import Role

_TIMEOUT = click.option("--timeout", metavar="DURATION", help="Time limit, such as 20m.")
_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line."
)
_EVEN = click.option("--allow-even", is_flag=True, help="Allow an even number of control planes.")


@click.group()
def command() -> None:
    """Add, remove or replace one node of a lab; or reset one, which lives on and can join again.

    \b
    Examples:
      klab node add --role worker
      klab node rm w2
      klab node replace ha-3m2w cp2
      klab node reset w1
      klab node join w1
    """


@command.command()
@click.argument("words", nargs=-1, metavar="[LAB] [NODE]")
@click.option("--role", type=click.Choice(["worker", "control-plane"]), default="worker", show_default=True)
@_EVEN
@_TIMEOUT
@_JSON
def add(words: tuple[str, ...], role: str, allow_even: bool, timeout: str | None, as_json: bool) -> None:
    """Add a node; without a name it gets the next free one (w3).

    \b
    Examples:
      klab node add
      klab node add 1m2w gpu1
      klab node add ha-3m2w --role control-plane --allow-even
    """
    from lab.app.scale import add_node
    from lab.cli.reports.scale import run_change
    from lab.cli.terminal.words import lab_then

    lab, rest = lab_then(words)
    if len(rest) > 1:
        raise UsageError(f"one node at a time, not {len(rest)}", hint="klab scale --workers N adds several")
    name = rest[0] if rest else None
    act = partial(add_node, role=cast("Role", role), name=name, allow_even=allow_even)
    run_change(lab, act, timeout=timeout, as_json=as_json)


@command.command()
@click.argument("words", nargs=-1, metavar="[LAB] NODE")
@_EVEN
@_TIMEOUT
@_JSON
def rm(words: tuple[str, ...], allow_even: bool, timeout: str | None, as_json: bool) -> None:
    """Remove a node: drain it, take it out of etcd and the cluster, remove its machine.

    \b
    Examples:
      klab node rm w2
    """
    from lab.app.scale import remove_node
    from lab.cli.reports.scale import run_change

    lab, name = _lab_and_node(words)
    act = partial(remove_node, name=name, allow_even=allow_even)
    run_change(lab, act, timeout=timeout, as_json=as_json)


@command.command()
@click.argument("words", nargs=-1, metavar="[LAB] NODE")
@_TIMEOUT
@_JSON
def replace(words: tuple[str, ...], timeout: str | None, as_json: bool) -> None:
    """Recreate a node, dead or alive, under the same name and address.

    \b
    Examples:
      klab node replace ha-3m2w cp2
    """
    from lab.app.scale import replace_node
    from lab.cli.reports.scale import run_change

    lab, name = _lab_and_node(words)
    run_change(lab, partial(replace_node, name=name), timeout=timeout, as_json=as_json)


@command.command()
@click.argument("words", nargs=-1, metavar="[LAB] NODE")
@_TIMEOUT
@_JSON
def reset(words: tuple[str, ...], timeout: str | None, as_json: bool) -> None:
    """Let a node leave the cluster and live on, as kubeadm reset does it, cleaned up completely.

    The node is drained, its etcd member and its node object go, kubeadm reset runs on it, and what that leaves is
    removed: the pod network's configuration, interfaces and rules. Its machine, its disk, the container runtime and
    the images stay. It can join again by the command that klab token prints, run as root on the node, or by klab node
    join. The only control plane cannot be reset, nor one without which etcd would lose its quorum.

    \b
    Examples:
      klab node reset w1
      klab token                                join by hand: prints kubeadm join ...
      klab ssh w1 -- sudo kubeadm join ...      ... which runs on the node
      klab node reset ha-3m2w cp3 && klab node join ha-3m2w cp3
    """
    from lab.app.scale import reset_node
    from lab.cli.reports.scale import run_reset

    lab, name = _lab_and_node(words)
    run_reset(lab, name, reset_node, timeout=timeout, as_json=as_json)


@command.command()
@click.argument("words", nargs=-1, metavar="[LAB] NODE")
@_TIMEOUT
@_JSON
def join(words: tuple[str, ...], timeout: str | None, as_json: bool) -> None:
    """Let a node that was reset join the cluster again, and wait until it is Ready.

    It joins with a fresh token, with its machine and its disk as they are; what an earlier membership has left there is
    removed before. It does not matter whether klab or a person has reset it. A member is only waited for.

    \b
    Examples:
      klab node join w1
      klab node join ha-3m2w cp3
    """
    from lab.app.scale import join_node
    from lab.cli.reports.scale import run_join

    lab, name = _lab_and_node(words)
    run_join(lab, name, join_node, timeout=timeout, as_json=as_json)


def _lab_and_node(words: tuple[str, ...]) -> tuple[Lab, str]:
    from lab.cli.terminal.words import lab_then

    lab, rest = lab_then(words)
    if len(rest) != 1:
        names = ", ".join(n.name for n in lab.plan.nodes)
        raise UsageError("a node is needed" if not rest else "one node at a time", hint=f"one of: {names}")
    return lab, lab.plan.known(rest[0]).name
