"""The words of a command line."""

from __future__ import annotations

import pytest

from lab.cli.terminal.words import parse_duration, seconds_in, without_dashes
from lab.errors import UsageError


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
