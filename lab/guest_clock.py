"""The guests' clocks, counted from the host's: on hosts without hardware virtualization they run slower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestClock:
    """The clock of a lab's guests.

    `epoch` is the moment, in seconds since 1970, at which the guests' clocks and the host's show the same;
    `rate` is how fast the guests' run since then, 1.0 on hardware virtualization.
    """

    epoch: float
    rate: float = 1.0

    def guest(self, host_time: float) -> float:
        """What the guests' clocks show when the host's shows `host_time`; both in seconds since 1970."""
        return self.epoch + (host_time - self.epoch) * self.rate

    def host_seconds(self, guest_seconds: float) -> float:
        """How long it takes on the host until so many seconds have passed in the guests."""
        return guest_seconds / self.rate
