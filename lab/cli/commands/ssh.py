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
    from lab.app import programs
    from lab.app.labs import enter
    from lab.cli.terminal.output import note
    from lab.cli.terminal.words import lab_then, without_dashes
    from lab.process import attach

    lab, rest = lab_then(words)
    if not rest:
        names = ", ".join(n.name for n in lab.plan.nodes)
        raise UsageError("klab ssh needs a node", hint=f"klab ssh NODE, where NODE is one of: {names}")
    node = lab.plan.known(rest[0])
    enter(lab, note=note)
    sys.exit(attach(programs.ssh(lab, node.name, without_dashes(rest[1:])).argv))
