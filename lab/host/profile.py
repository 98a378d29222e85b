"""How fast guests run here, as the rest of klab is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps KVM from running guests here.

    `why` is for a person, and `hint` is what the person can do about it. `overdue`: the probe guest ran and did not
    end in time. `taken`: another hypervisor has the processor's virtualization for now.
    """

    why: str
    hint: str
    overdue: bool = False
    taken: bool = False


@dataclass(frozen=True, slots=True)
class HostProfile:
    """How this host runs guests.

    `accelerated`: hardware virtualization runs a guest (seen, not assumed).
    `dilation`: the rate at which guests' clocks shall run; 1.0 is real time.
    `obstacle`: what keeps hardware virtualization from it; None when accelerated, or where that is long decided.
    """

    accelerated: bool
    dilation: float
    obstacle: Obstacle | None = None


# A host whose guests run on hardware virtualization, with clocks as fast as its own.
REAL_TIME = HostProfile(accelerated=True, dilation=1.0)
