"""klab ssh"""

from __future__ import annotations

import sys

import click

from lab.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LAB] NODE [-- COMMAND...]")
def command(words: tuple[str, ...]) -> None:
    """Open a shell on a node, or run one command there.

    \b
    Examples:
      klab ssh cp1
      klab ssh 1m2w w1 -- sudo systemctl status kubelet
      klab ssh w1 -- 'ls /etc/cni/net.d; cat /etc/hosts'
    """
    from lab.cli.opening import lab_then
    from lab.process import attach

    lab, rest = lab_then(words)
    if not rest:
        names = ", ".join(n.name for n in lab.plan.nodes)
        raise UsageError("which node?", hint=f"klab ssh NODE, where NODE is one of: {names}")
    node = lab.node(rest[0])
    lab.enter()
    sys.exit(attach(lab.machines().ssh_argv(node.name, _command(rest[1:]))))


def _command(words: list[str]) -> list[str]:
    """What follows the node; a single quoted line goes to a shell there, as ssh would have it."""
    words = words[1:] if words[:1] == ["--"] else words
    return ["bash", "-c", words[0]] if len(words) == 1 and " " in words[0] else words
