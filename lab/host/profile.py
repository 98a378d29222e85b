"""How fast guests run here, as the rest of klab is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostProfile:
    """How this host runs guests.

    `accelerated`: hardware virtualization runs a guest (seen, not assumed).
    `factor`: how many times longer a guest takes for the same work; 1.0 when accelerated.
    `dilation`: the rate at which guests' clocks shall run; 1.0 is real time.
    """

    accelerated: bool
    factor: float
    dilation: float


# A host whose guests run on hardware virtualization, with clocks as fast as its own.
REAL_TIME = HostProfile(accelerated=True, factor=1.0, dilation=1.0)
