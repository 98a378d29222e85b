"""How much slower guests are, and how slow their clocks shall run, where the host has no hardware virtualization."""

from __future__ import annotations

import os
from dataclasses import dataclass

from lab.errors import HostError, MachineError, ProgramTimeout, Remedy
from lab.host.emulation.slow_clock import ensure_library
from lab.host.probe_guest import ROUNDS, run_guest, run_here
from lab.host.profile import HostProfile, Obstacle
from lab.store import Home

# Time dilation 0.3 lets stock kubeadm time-outs hold on a host about 15 times slower; measured,
# see docs/decisions/0202-time-dilation.md.
DILATION = 0.3
# ... for so many virtual CPUs on each core: three nodes of two CPUs on two cores.
CPUS_PER_CORE = 3
EMULATED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a host emulates guests: how many times longer the probe guest's work takes than natively, and for how many
    seconds the guest was there for it."""

    factor: float
    seconds: float


def emulated(home: Home, cpus: int, obstacle: Obstacle) -> HostProfile:
    """What this host is without hardware virtualization.

    Args:
        home: klab's home.
        cpus: virtual CPUs of the lab that is to run; many on few cores get slower clocks still.
        obstacle: what keeps it from hardware virtualization.

    Raises:
        HostError: KLAB_DILATION is invalid; or as `ensure_library`.
    """
    rate = wanted_rate(pace(cpus, len(os.sched_getaffinity(0))))
    if rate != 1.0:
        ensure_library(home)
    return HostProfile(accelerated=False, dilation=rate, obstacle=obstacle)


def pace(cpus: int, cores: int) -> float:
    """The rate of guests' clocks without hardware virtualization, for so many virtual CPUs on so many cores.

    The more virtual CPUs, the more work a cluster does in the same time of its guests, and the smaller the share
    of the cores that each of them gets: so the rate falls with the square of the share.
    """
    share = min(1.0, CPUS_PER_CORE * cores / max(cpus, 1))
    return round(DILATION * share**2, 2)


def measured() -> Pace:
    """How this host emulates guests.

    Raises:
        HostError: QEMU does not run a guest.
    """
    try:
        empty = run_guest("tcg", 1, EMULATED_SECONDS)
        full = run_guest("tcg", ROUNDS, EMULATED_SECONDS)
    except (ProgramTimeout, MachineError) as error:
        raise HostError(
            "QEMU does not run a guest here",
            details=[error.message, *error.details],
            hint=(Remedy("doctor"), " tells what this machine lacks"),
        ) from error
    return Pace(factor=round(max(1.0, (full - empty) / run_here(ROUNDS)), 1), seconds=full)


def wanted_rate(default: float) -> float:
    """The rate at which guests' clocks shall run: KLAB_DILATION where it is set.

    Raises:
        HostError: KLAB_DILATION is not a number above 0 and at most 1.
    """
    text = os.environ.get("KLAB_DILATION")
    if text is None:
        return default
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1:
        raise HostError(
            f"KLAB_DILATION is {text!r}; it must be a number above 0 and at most 1", hint="unset KLAB_DILATION"
        )
    return rate
