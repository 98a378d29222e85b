"""The guests' clocks as klab counts them; a real slow clock: tests/unit/host/test_emulator.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.guest_clock import GuestClock

MOMENTS = st.floats(0, 1 << 32)
RATES = st.floats(0.01, 1)


def test_at_its_epoch_a_guest_shows_the_hosts_time() -> None:
    clock = GuestClock(epoch=100.0, rate=0.3)
    assert clock.guest(100.0) == 100.0
    assert clock.guest(110.0) == 103.0
    assert clock.host_seconds(3.0) == 10.0


def test_on_hardware_virtualization_both_show_the_same() -> None:
    assert GuestClock(epoch=1e9).guest(1.5e9) == 1.5e9


@given(MOMENTS, MOMENTS, MOMENTS, RATES)
def test_time_never_runs_backwards(epoch: float, first: float, second: float, rate: float) -> None:
    clock = GuestClock(epoch, rate)
    earlier, later = sorted((first, second))
    assert clock.guest(earlier) <= clock.guest(later)
