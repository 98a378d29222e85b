"""klab logs"""

from __future__ import annotations

import codecs
import os
import sys
import time
from typing import BinaryIO

import click

from lab.cli.terminal.output import echo
from lab.errors import NotFound, UsageError

FOLLOW_SECONDS = 0.3
# Of a console that a guest has filled no more is read than a person can want of it; bytes.
LINE = 4096
MOST_AT_ONCE = 16 << 20
BLOCK = 1 << 16


@click.command()
@click.argument("words", nargs=-1, metavar="[LAB] NODE")
@click.option("-f", "--follow", is_flag=True, help="Go on as the node prints more.")
@click.option("--kubelet", is_flag=True, help="The kubelet's journal instead of the serial console.")
@click.option("-n", "--lines", type=click.IntRange(min=1), default=200, show_default=True)
def command(words: tuple[str, ...], follow: bool, kubelet: bool, lines: int) -> None:
    """Show what a node printed on its serial console, from power-on.

    \b
    Examples:
      klab logs cp1
      klab logs 1m2w w1 --follow
      klab logs cp1 --kubelet -n 50
    """
    from lab.cli.opening import lab_then
    from lab.process import attach

    lab, rest = lab_then(words)
    if len(rest) != 1:
        names = ", ".join(n.name for n in lab.plan.nodes)
        raise UsageError("which node's log?", hint=f"klab logs NODE, where NODE is one of: {names}")
    node = lab.node(rest[0])
    lab.enter()
    machines = lab.machines()
    if kubelet:
        journal = ["sudo", "journalctl", "-u", "kubelet", "-n", str(lines), "--no-pager", *(["-f"] if follow else [])]
        # What a guest prints is no business of the terminal's.
        shown = _Shown() if sys.stdout is not None and sys.stdout.isatty() else None
        sys.exit(attach(machines.ssh_argv(node.name, journal), through=shown))
    file = machines.consoles()[node.name]
    show = _Shown()
    try:
        with file.open("rb") as console:
            show(_end(console, lines))
            while follow:
                time.sleep(FOLLOW_SECONDS)
                if os.fstat(console.fileno()).st_size < console.tell():
                    console.seek(0)  # a new console: the node was started again
                while more := console.read(BLOCK):
                    show(more)
    except FileNotFoundError:
        raise NotFound(f"{node.name} has printed nothing yet", hint="klab status shows whether it runs") from None


class _Shown:
    """Prints bytes of a guest's as they come; a character may come in parts."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __call__(self, data: bytes) -> None:
        echo(self._decoder.decode(data).replace("\r", ""), nl=False)


def _end(file: BinaryIO, count: int) -> bytes:
    """The last lines of a file, however long it is; the last one has an end, or is still being printed."""
    most = min(count * LINE, MOST_AT_ONCE)
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    lines = file.read(most).split(b"\n")
    return b"\n".join(lines[-count:] if lines[-1] else lines[-count - 1 :])
