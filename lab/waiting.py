"""One deadline, handed down, instead of time limits inside time limits; and several things at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import tenacity

T = TypeVar("T")
Q = TypeVar("Q", bound=Hashable)
AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock by which the work must be done."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds left; 0 once it has passed."""
        return max(0.0, self.at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left == 0.0

    def at_most(self, seconds: float) -> float:
        """Seconds left, but never more than `seconds`: the time limit of one step."""
        return min(self.left, seconds)


def poll(probe: Callable[[], T | None], deadline: Deadline, *, every: float = 1.0) -> T | None:
    """Call `probe` until it returns something true or the deadline passes.

    Args:
        probe: returns what was waited for, or None (or False) for "not yet".
        deadline: when to give up; the probe is called at least once.
        every: seconds between two calls.

    Returns:
        What the probe returned, or None when the deadline passed first.
    """
    retry = tenacity.Retrying(
        sleep=time.sleep,
        retry=tenacity.retry_if_not_result(bool),
        stop=lambda _state: deadline.passed,
        wait=lambda _state: min(every, deadline.left),
        retry_error_callback=lambda _state: None,
    )
    return retry(probe)


def map_parallel(act: Callable[[Q], T], items: Sequence[Q], *, most: int = AT_ONCE) -> dict[Q, T]:
    """What comes of each of these, done side by side, in their order.

    Args:
        act: done for each, in a thread.
        items: no two are equal.
        most: how many at a time.

    Raises:
        Exception: the first failure, once all have ended.
    """
    with ThreadPoolExecutor(max_workers=max(1, min(most, len(items)))) as pool:
        return dict(zip(items, pool.map(act, items), strict=True))
