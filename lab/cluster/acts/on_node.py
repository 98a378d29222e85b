"""Run a command on a node, where its failure is told in the words of the act that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.machines.protocol import Machines

# Reads a script from standard input.
ROOT_SHELL = ("sudo", "bash", "-s")


def failure(
    machines: Machines, name: str, command: Sequence[str], seconds: float, stdin: str | Path | None = None
) -> list[str]:
    """Run a command on a node until it ends.

    Args:
        machines: the lab's.
        name: the node's.
        command: its words; no shell is involved on this side.
        seconds: how long it may take, by the host's clock.
        stdin: text, or a file, that it reads.

    Returns:
        What was seen of its failure, line by line; nothing where it succeeded.
    """
    try:
        done = machines.ssh(name, list(command), seconds, check=False, stdin=stdin)
    except LabError as error:
        return [error.message, *error.details]
    return [f"exit code {done.code}", *done.tail] if done.code else []
