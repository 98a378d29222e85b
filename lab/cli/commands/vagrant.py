"""klab vagrant"""

from __future__ import annotations

import sys

import click

from lab.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LAB] -- ARGUMENTS...")
def command(words: tuple[str, ...]) -> None:
    """Run vagrant in a lab's folder, with the environment it needs.

    A lab's folder is an ordinary Vagrant project. Where the lab is on klab's private
    libvirt, this is the way in.

    \b
    Examples:
      klab vagrant -- status
      klab vagrant 1m2w -- ssh cp1
      klab vagrant 1m2w -- halt w1
    """
    from lab.app import programs
    from lab.app.labs import enter
    from lab.cli.terminal.output import note
    from lab.cli.terminal.words import lab_then, without_dashes
    from lab.process import attach

    lab, rest = lab_then(words)
    rest = without_dashes(rest)
    if not rest:
        raise UsageError("klab vagrant needs arguments for vagrant", hint="for example: klab vagrant -- status")
    enter(lab, note=note)
    vagrant = programs.vagrant(lab, rest)
    sys.exit(attach(vagrant.argv, env=vagrant.env))
