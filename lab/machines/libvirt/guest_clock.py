"""The clock of a libvirt guest, set through its agent.

Source: libvirt.org, virDomainSetTime; QEMU, qga/qapi-schema.json, guest-set-time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.machines.libvirt import guest_agent
from lab.machines.libvirt.connection import library

if TYPE_CHECKING:
    import libvirt

# A clock that is so far off, in seconds, is right: setting it would be no better.
CLOSE = 0.1
AGENT_SECONDS = 10
NANO = 1_000_000_000


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
