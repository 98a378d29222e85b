"""klab logs"""

from __future__ import annotations

import codecs
import sys

import click

from lab.cli.terminal.output import echo
from lab.errors import UsageError


@click.command()
@click.argument("words", nargs=-1, metavar="[LAB] NODE")
@click.option("-f", "--follow", is_flag=True, help="Keep printing what the node prints.")
@click.option("--boots", is_flag=True, help="Show what it printed before its last boot, too.")
@click.option("--kubelet", is_flag=True, help="Show the kubelet's journal instead of the serial console.")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=200, show_default=True)
def command(words: tuple[str, ...], follow: bool, boots: bool, kubelet: bool, lines: int) -> None:
    """Show what a node printed on its serial console since its last boot.

    \b
    Examples:
      klab logs cp1
      klab logs 1m2w w1 --follow
      klab logs cp1 --kubelet -n 50
    """
    from lab.app import programs
    from lab.app.consoles import console
    from lab.app.labs import enter
    from lab.cli.terminal.output import note
    from lab.cli.terminal.words import lab_then
    from lab.process import attach

    lab, rest = lab_then(words)
    if len(rest) != 1:
        names = ", ".join(n.name for n in lab.plan.nodes)
        raise UsageError("klab logs needs one node", hint=f"klab logs NODE, where NODE is one of: {names}")
    node = lab.plan.known(rest[0])
    enter(lab, note=note)
    if kubelet:
        # A guest's output must not drive the terminal.
        shown = GuestOutput() if sys.stdout is not None and sys.stdout.isatty() else None
        sys.exit(attach(programs.kubelet_journal(lab, node.name, lines, follow=follow).argv, through=shown))
    show = GuestOutput()
    for data in console(lab, node.name, lines, boots=boots, follow=follow, note=note):
        show(data)


class GuestOutput:
    """Prints bytes of a guest's as they come; a character may come in parts."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, data: bytes) -> None:
        echo(self._decoder.decode(data).replace("\r", ""), nl=False)
