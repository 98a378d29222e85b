"""Steps that take long are told again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from lab.reminder import repeating
from lab.waiting import Deadline, poll


def test_a_step_that_takes_long_is_told_again() -> None:
    told: list[str] = []
    with repeating(told.append, every=0.02) as tell:
        tell("compiling kubernetes")
        assert poll(lambda: len(told) > 2, Deadline.after(60), every=0.01)
        tell("digests")
        assert poll(lambda: told[-1] == "still digests", Deadline.after(60), every=0.01)
    assert set(told) == {"compiling kubernetes", "still compiling kubernetes", "digests", "still digests"}
    count = len(told)
    assert not [each for each in threading.enumerate() if each.name == "klab reminder"]
    assert len(told) == count


def test_a_quick_one_is_told_once_and_a_failure_ends_it() -> None:
    told: list[str] = []

    def fail(tell: Callable[[str], None]) -> None:
        tell("digests")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), repeating(told.append) as tell:
        fail(tell)
    assert told == ["digests"]


def test_nothing_is_repeated_before_there_was_a_step() -> None:
    told: list[str] = []
    with repeating(told.append, every=0.005):
        assert poll(lambda: False, Deadline.after(0.05), every=0.01) is None
    assert told == []
