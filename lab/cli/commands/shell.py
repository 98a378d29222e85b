"""klab shell"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from lab.errors import LabError, MachineError, UsageError

if TYPE_CHECKING:
    from lab.cli.opening import OpenLab

TMUX_SECONDS = 20.0
# What runs in a pane: $1 is the node, then the command that opens a shell there.
PANE = """
node=$1
shift
while :; do
    "$@"
    printf '\\nEnter opens a shell on %s, Ctrl-D closes this pane. ' "$node"
    read -r _ || exit 0
done
"""


@click.command()
@click.argument("lab", required=False)
@click.option("--synchronize", is_flag=True, help="What you type goes to all nodes at once.")
@click.option("--node", hidden=True, help="Open a shell on one node: what runs in each pane.")
def command(lab: str | None, synchronize: bool, node: str | None) -> None:
    """Open tmux with a shell on each node, side by side; called again, go back to it.

    The session is called klab-LAB. A pane stays when its shell ends: Enter opens another,
    which helps after a reboot, and Ctrl-D closes the pane. In tmux, Ctrl-b and an arrow key
    go to another pane, Ctrl-b d leaves the session running, and Ctrl-b :setw synchronize-panes
    switches between typing to one node and to all.

    \b
    Examples:
      klab shell
      klab shell ha-3m2w --synchronize
    """
    from lab.cli.opening import find_lab
    from lab.process import attach, find

    found = find_lab(lab)
    if node is not None:
        _open_shell(found, node)
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        raise UsageError(
            "klab shell needs a terminal", hint=f"klab ssh {found.name} NODE -- COMMAND runs a command without one"
        )
    find("tmux")
    session = f"klab-{found.name}"
    if not _there(session):
        _open_session(found, session)
    if synchronize:
        for window in _tmux("list-windows", "-t", f"={session}", "-F", "#{window_id}").split():
            _tmux("set-option", "-w", "-t", window, "synchronize-panes", "on")
    # One tmux inside another takes the same keys twice.
    go = "switch-client" if os.environ.get("TMUX") else "attach-session"
    sys.exit(attach(["tmux", go, "-t", f"={session}"]))


def _open_shell(lab: OpenLab, name: str) -> NoReturn:
    """Go to one node, as klab ssh does, unless its machine does not run: ssh would take its time to find out.

    Raises:
        MachineError: it does not run.
    """
    from lab.machines.protocol import NodeState
    from lab.process import attach

    node = lab.node(name)
    lab.enter()
    machines = lab.machines()
    state = machines.states()[node.name]
    if state != NodeState.RUNNING:
        raise MachineError(
            f"{node.name} does not run: its machine is {state.value}",
            hint=f"klab start {lab.name} {node.name}",
        )
    sys.exit(attach(machines.ssh_argv(node.name)))


def _there(session: str) -> bool:
    """Whether there is such a session; "=" keeps tmux from taking one whose name only begins so."""
    from lab.process import run

    return run(["tmux", "has-session", "-t", f"={session}"], timeout=TMUX_SECONDS, check=False).code == 0


def _open_session(lab: OpenLab, session: str) -> None:
    """Make the session, all of it or nothing, with nobody in it yet."""
    size = shutil.get_terminal_size()
    names = [node.name for node in lab.plan.nodes]
    new = ("-P", "-F", "#{window_id} #{pane_id}", "-n", lab.name)
    place = _tmux(
        "new-session", "-d", "-s", session, "-x", str(size.columns), "-y", str(size.lines), *new, *_pane(lab, names[0])
    )
    try:
        window, pane = place.split()
        _label(window, pane, names[0])
        for name in names[1:]:
            try:
                # The pane before is the one that is split, so that they stand in order.
                pane = _tmux("split-window", "-d", "-t", pane, "-P", "-F", "#{pane_id}", *_pane(lab, name)).strip()
            except LabError:
                # No room left for another pane.
                window, pane = _tmux("new-window", "-d", "-t", f"={session}:", *new, *_pane(lab, name)).split()
            _label(window, pane, name)
    except BaseException:
        with contextlib.suppress(LabError):  # tmux may have ended, and what went wrong before counts
            _tmux("kill-session", "-t", f"={session}")
        raise


def _pane(lab: OpenLab, node: str) -> list[str]:
    """The command line of a node's pane."""
    from lab.cli.commands.connect import this_klab

    return ["sh", "-c", PANE, "sh", node, *this_klab(), "shell", lab.name, "--node", node]


def _label(window: str, pane: str, node: str) -> None:
    """Name a pane and put all of its window into order again."""
    _tmux("select-pane", "-t", pane, "-T", node)
    # A program on the node may change the title; the border goes on to show whose pane it is.
    _tmux("set-option", "-p", "-t", pane, "@klab_node", node)
    _tmux("set-option", "-w", "-t", window, "pane-border-status", "top")
    _tmux("set-option", "-w", "-t", window, "pane-border-format", " #{@klab_node} ")
    _tmux("select-layout", "-t", window, "tiled")


def _tmux(*words: str) -> str:
    """Tell tmux something and return its answer.

    Raises:
        ProgramError: it refuses.
    """
    from lab.process import run

    return run(["tmux", *words], timeout=TMUX_SECONDS).stdout
