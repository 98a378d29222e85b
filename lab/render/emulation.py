"""What machines have only where the host has no hardware virtualization: a named CPU, and an emulator with slow clocks.

The rest of it is in `lab.host.emulation`.
"""

from __future__ import annotations

from dataclasses import dataclass

# RAM saved under emulation must load again: a named model that QEMU emulates in full enough.
EMULATED_CPU = "Haswell-noTSX"
# How many times longer ssh may take to answer; Vagrant gives the DHCP lease 10 minutes whatever is set here.
PATIENCE = 3
# By which the emulator with slow clocks learns epoch and rate (lab/host/emulation/slow_clock.c).
EPOCH_VARIABLE = "KLAB_EPOCH"
RATE_VARIABLE = "KLAB_RATE"


@dataclass(frozen=True, slots=True)
class SlowClock:
    """An emulator whose clocks run slower than the host's: its path, and what it is told, as text.

    `epoch` is the moment from which its time differs, in seconds since 1970; `rate` is guest seconds per host second.
    """

    emulator: str
    epoch: str
    rate: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell the emulator."""
        return {EPOCH_VARIABLE: self.epoch, RATE_VARIABLE: self.rate}
