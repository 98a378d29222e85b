"""A guest's clock, set over ssh."""

from __future__ import annotations

from collections.abc import Callable

from lab.errors import MachineError
from lab.process import Completed

# What the clock shows. A slow guest pays for each program.
SHOW = ["date", "+%s"]
MOST_DIGITS = 12  # of the year 33658


def set_clock(run: Callable[[list[str]], Completed], clock: Callable[[], float]) -> float:
    """Set a node's clock forward, to the second; returns by how much, in seconds.

    Args:
        run: runs a command on the node as root.
        clock: what it shall show, in seconds since 1970.

    Raises:
        MachineError, ProgramError, ProgramTimeout: the node does not answer or refuses.
    """
    shown = run(SHOW).stdout.strip()
    if not (shown.isascii() and shown.isdigit() and len(shown) <= MOST_DIGITS):
        raise MachineError(
            "the node did not report its clock",
            details=[shown[:200]],
            hint="a login shell there must print nothing of its own",
        )
    behind = clock() - float(shown)
    if behind <= 1:  # date shows no more than seconds
        return 0.0
    run(["sudo", "date", "-s", f"@{int(clock())}"])
    return behind
