"""A tmux session with a pane for each node of a lab."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.errors import LabError
from lab.process import run

TMUX_SECONDS = 20.0
# What runs in a pane: $1 is the node, followed by the command that opens a shell there.
PANE = """
node=$1
shift
while :; do
    "$@"
    printf '\\nEnter opens a shell on %s, Ctrl-D closes this pane. ' "$node"
    read -r _ || exit 0
done
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of this name. "=" keeps tmux from taking one whose name only begins so."""

    name: str

    @property
    def target(self) -> str:
        return f"={self.name}"

    @property
    def attach_argv(self) -> list[str]:
        """The command line that shows the session."""
        # One tmux inside another takes the same keys twice.
        go = "switch-client" if os.environ.get("TMUX") else "attach-session"
        return ["tmux", go, "-t", self.target]

    def exists(self) -> bool:
        return run(["tmux", "has-session", "-t", self.target], timeout=TMUX_SECONDS, check=False).code == 0

    def open(self, title: str, shells: Mapping[str, Sequence[str]]) -> None:
        """Make the session, all of it or nothing, without a client yet.

        Args:
            title: its windows' name.
            shells: for each node the command line that opens a shell there.

        Raises:
            ProgramError: tmux refuses.
        """
        size = shutil.get_terminal_size()
        new = ("-P", "-F", "#{window_id} #{pane_id}", "-n", title)
        (first, argv), *others = shells.items()
        wide = ("-x", str(size.columns), "-y", str(size.lines))
        place = _tmux("new-session", "-d", "-s", self.name, *wide, *new, *_pane(first, argv))
        try:
            window, pane = place.split()
            _label(window, pane, first)
            for name, argv in others:
                try:
                    # The previous pane is the one that is split, so that they are in order.
                    pane = _tmux("split-window", "-d", "-t", pane, "-P", "-F", "#{pane_id}", *_pane(name, argv)).strip()
                except LabError:
                    # No room left for another pane.
                    window, pane = _tmux("new-window", "-d", "-t", f"{self.target}:", *new, *_pane(name, argv)).split()
                _label(window, pane, name)
        except BaseException:
            with contextlib.suppress(LabError):  # tmux may have ended, and what went wrong before counts
                _tmux("kill-session", "-t", self.target)
            raise

    def synchronize(self) -> None:
        """Let what is typed go to all panes of a window at once."""
        for window in _tmux("list-windows", "-t", self.target, "-F", "#{window_id}").split():
            _tmux("set-option", "-w", "-t", window, "synchronize-panes", "on")


def _pane(node: str, argv: Sequence[str]) -> list[str]:
    """The command line of a node's pane."""
    return ["sh", "-c", PANE, "sh", node, *argv]


def _label(window: str, pane: str, node: str) -> None:
    """Name a pane and put all of its window into order again."""
    _tmux("select-pane", "-t", pane, "-T", node)
    # A program on the node may change the title; the border continues to show whose pane it is.
    _tmux("set-option", "-p", "-t", pane, "@klab_node", node)
    _tmux("set-option", "-w", "-t", window, "pane-border-status", "top")
    _tmux("set-option", "-w", "-t", window, "pane-border-format", " #{@klab_node} ")
    _tmux("select-layout", "-t", window, "tiled")


def _tmux(*words: str) -> str:
    """Tell tmux something and return its answer; raises ProgramError."""
    return run(["tmux", *words], timeout=TMUX_SECONDS).stdout
