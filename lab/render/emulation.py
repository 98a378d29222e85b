"""What machines have only where the host has no hardware virtualization: a named CPU, and slower clocks.

The rest of it is in `lab.host.emulation`.
"""

from __future__ import annotations

from dataclasses import dataclass

# RAM saved under emulation must load again: a named model that QEMU emulates in full enough.
EMULATED_CPU = "Haswell-noTSX"
# How many times longer ssh may take to answer; Vagrant gives the DHCP lease 10 minutes whatever is set here.
PATIENCE = 3
# By which QEMU gets the library with slower clocks, and that learns epoch and rate (lab/host/emulation/slow_clock.c).
LIBRARY_VARIABLE = "LD_PRELOAD"
EPOCH_VARIABLE = "KLAB_EPOCH"
RATE_VARIABLE = "KLAB_RATE"


@dataclass(frozen=True, slots=True)
class SlowClock:
    """What makes QEMU's clocks run slower than the host's: the path of a library, and what it is told, as text.

    `epoch` is the moment from which its time differs, in seconds since 1970; `rate` is guest seconds per host second.
    """

    library: str
    epoch: str
    rate: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that QEMU is started with."""
        return {LIBRARY_VARIABLE: self.library, EPOCH_VARIABLE: self.epoch, RATE_VARIABLE: self.rate}
