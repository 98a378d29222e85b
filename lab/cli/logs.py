"""klab logs"""

from __future__ import annotations

import os
import re
import sys
import time

import click

from lab.errors import NotFound, UsageError

FOLLOW_SECONDS = 0.3


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
        sys.exit(attach(machines.ssh_argv(node.name, journal)))
    file = machines.consoles()[node.name]
    try:
        with file.open("rb") as console:
            text = console.read().decode("utf-8", "replace").replace("\r", "")
            # The last line has an end, or is still being printed.
            sys.stdout.write("".join(re.findall(r"[^\n]*\n|[^\n]+$", text)[-lines:]))
            sys.stdout.flush()
            while follow:
                time.sleep(FOLLOW_SECONDS)
                if os.fstat(console.fileno()).st_size < console.tell():
                    console.seek(0)  # a new console: the node was started again
                sys.stdout.write(console.read().decode("utf-8", "replace").replace("\r", ""))
                sys.stdout.flush()
    except FileNotFoundError:
        raise NotFound(f"{node.name} has printed nothing yet", hint="klab status shows whether it runs") from None
