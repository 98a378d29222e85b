"""The words of a command line."""

from __future__ import annotations

import pytest

from lab.cli.reports.create import speed
from lab.cli.terminal.words import parse_duration, seconds_in, without_dashes
from lab.errors import UsageError
from lab.host.kvm_probe import refused
from lab.host.profile import REAL_TIME, HostProfile


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("20m", 1200), ("1h30m", 5400), ("168h", 604800), ("0000000000000001m", 60)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h0m", "1d", "-1", "1.5h", "m", "\u0663s", "1h 30m", "\x1b[2J"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["169h", "604801", "9" * 5000, f"{10**32}h"])
def test_nobody_waits_for_more_than_a_week(text: str) -> None:
    with pytest.raises(UsageError, match="too long to wait") as caught:
        parse_duration(text)
    assert len(caught.value.message) < 120
    assert "168h" in caught.value.hint


def test_an_option_may_be_left_out() -> None:
    assert seconds_in(None) is None
    assert seconds_in("2m") == 120


def test_two_dashes_separate_once() -> None:
    assert without_dashes(["--", "get", "--", "nodes"]) == ["get", "--", "nodes"]
    assert without_dashes(["get", "--", "nodes"]) == ["get", "--", "nodes"]
    assert without_dashes([]) == []


def test_why_guests_are_slow_is_one_line_of_qemus() -> None:
    assert speed(REAL_TIME) == "hardware virtualization"
    why = refused("qemu: failed to set MSR 0x10a; qemu: kvm.c:3849: kvm_buf_set_msrs: Assertion `ret == n' failed.")
    told = speed(HostProfile(accelerated=False, dilation=0.3, obstacle=why))
    slow = "emulated, guests' clocks at 0.3 of real speed"
    assert told == f"{slow}: KVM does not run a guest: qemu: failed to set MSR 0x10a ({why.hint})"
