"""klab kubectl"""

from __future__ import annotations

import sys

import click

from lab.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LAB] -- ARGUMENTS...")
def command(words: tuple[str, ...]) -> None:
    """Run kubectl against a lab, on this machine.

    The kubectl is the one that was built with the lab's box, so its version fits. For a lab from
    a bundle whose box was not built here, it is the one on the PATH.

    \b
    Examples:
      klab kubectl -- get nodes -o wide
      klab kubectl 1m2w -- apply -f nginx.yaml
    """
    from lab.app import programs
    from lab.app.labs import enter
    from lab.cli.terminal.output import note
    from lab.cli.terminal.words import lab_then, without_dashes
    from lab.process import attach

    lab, rest = lab_then(words)
    rest = without_dashes(rest)
    if not rest:
        raise UsageError("klab kubectl needs arguments for kubectl", hint="for example: klab kubectl -- get nodes")
    kubectl = programs.kubectl(lab, rest)
    enter(lab, note=note)
    sys.exit(attach(kubectl.argv, env=kubectl.env))
