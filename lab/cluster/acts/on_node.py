"""Run a command on a node, where its failure is told in the words of the act that runs it; nodes have to run for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import Conflict, LabError, Remedy
from lab.machines.protocol import Machines, NodeState

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


def refuse_off(machines: Machines, lab: str, then: str = "") -> None:
    """Make sure that every machine of a lab runs.

    Args:
        machines: the lab's.
        lab: its name.
        then: what the hint says once it has named the command that starts them.

    Raises:
        Conflict: some are off.
    """
    off = {name: state.value for name, state in machines.states().items() if state != NodeState.RUNNING}
    if off:
        raise Conflict(
            f"not every machine of lab {lab!r} runs",
            details=[f"{name} is {state}" for name, state in off.items()],
            hint=(Remedy("start", lab=lab), f" starts them{then}"),
        )
