"""The clock of a libvirt guest: set through its agent, or over ssh where it has none.

Source: libvirt.org, virDomainSetTime; QEMU, qga/qapi-schema.json, guest-set-time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.errors import MachineError
from lab.machines.libvirt import guest_agent
from lab.machines.libvirt.connection import library
from lab.process import Completed

if TYPE_CHECKING:
    import libvirt

# A clock that is so far off, in seconds, is right: setting it would be no better.
CLOSE = 0.1
AGENT_SECONDS = 10
NANO = 1_000_000_000
# Over ssh: what it shows, and how to set it. A slow guest pays for each program.
SHOW = ["date", "+%s"]
MOST_DIGITS = 12  # of the year 33658


def through_agent(domain: libvirt.virDomain, clock: Callable[[], float]) -> float | None:
    """Set it through the agent; returns by how much, None where no agent does it."""
    library_ = library()
    try:
        domain.agentSetResponseTimeout(AGENT_SECONDS)
        shown = guest_agent.patiently(lambda: _shown(domain))
        behind = clock() - shown
        if behind <= CLOSE:
            return 0.0
        try:
            seconds, rest = divmod(int(clock() * NANO), NANO)
            domain.setTime({"seconds": seconds, "nseconds": rest})
        except library_.libvirtError:
            # The agent also writes the hardware's clock, with a program that the guest may not have.
            if abs(clock() - _shown(domain)) > 1:
                return None
    except library_.libvirtError:
        return None
    return behind


def _shown(domain: libvirt.virDomain) -> float:
    told = domain.getTime()
    return float(told["seconds"]) + float(told["nseconds"]) / NANO


def over_ssh(run: Callable[[list[str]], Completed], clock: Callable[[], float]) -> float:
    """Set it to the second over ssh; returns by how much.

    Args:
        run: runs a command on the node as root.
        clock: what it shall show, in seconds since 1970.

    Raises:
        MachineError, ProgramError, ProgramTimeout: the node does not answer or refuses.
    """
    shown = run(SHOW).stdout.strip()
    if not (shown.isascii() and shown.isdigit() and len(shown) <= MOST_DIGITS):
        raise MachineError(
            "the node does not tell what its clock shows",
            details=[shown[:200]],
            hint="nothing but its answer may be printed at login",
        )
    behind = clock() - float(shown)
    if behind <= 1:  # date shows no more than seconds
        return 0.0
    run(["sudo", "date", "-s", f"@{int(clock())}"])
    return behind
