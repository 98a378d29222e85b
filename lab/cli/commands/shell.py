"""klab shell"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.cluster.lab import Lab


@click.command()
@click.argument("lab", required=False)
@click.option("--synchronize", is_flag=True, help="Send what you type to all nodes at once.")
@click.option("--node", hidden=True, help="Open a shell on one node: what runs in each pane.")
def command(lab: str | None, synchronize: bool, node: str | None) -> None:
    """Open tmux with a shell on each node, side by side. Run again, it returns to them.

    The session is called klab-LAB. A pane stays when its shell ends: Enter opens another,
    which helps after a reboot, and Ctrl-D closes the pane. In tmux, Ctrl-b and an arrow key
    go to another pane, Ctrl-b d leaves the session running, and Ctrl-b :setw synchronize-panes
    switches between typing to one node and to all.

    \b
    Examples:
      klab shell
      klab shell ha-3m2w --synchronize
    """
    from lab.app.connect import this_klab
    from lab.app.labs import Labs
    from lab.cli.terminal.tmux import Session
    from lab.process import attach, find

    found = Labs().find(lab)
    if node is not None:
        _open_shell(found, node)
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        raise UsageError(
            "klab shell needs a terminal", hint=f"klab ssh {found.name} NODE -- COMMAND runs a command without one"
        )
    find("tmux")
    session = Session(f"klab-{found.name}")
    if not session.exists():
        shells = {n.name: [*this_klab(), "shell", found.name, "--node", n.name] for n in found.plan.nodes}
        session.open(found.name, shells)
    if synchronize:
        session.synchronize()
    sys.exit(attach(session.attach_argv))


def _open_shell(lab: Lab, name: str) -> NoReturn:
    """Go to one node, as klab ssh does; errors as `programs.ssh_if_running`."""
    from lab.app import programs
    from lab.app.labs import enter
    from lab.cli.terminal.output import note
    from lab.process import attach

    node = lab.plan.known(name)
    enter(lab, note=note)
    sys.exit(attach(programs.ssh_if_running(lab, node.name).argv))
