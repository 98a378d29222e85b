"""Whether anything was lost or done twice in a lab that was saved and restored: the judgement. Pure.

Everything that counts in the lab counts up by one, so that a hole or a second time shows in what it
wrote down. What was seen before a freeze must be there after a restore, and nobody may know a
number that its owner does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from support.witness import Write


@dataclass(frozen=True)
class Tally:
    """What the counters of a lab had written at one look.

    `own` is by worker what its pod wrote into its volume, `copies` by worker what it had copied of
    the other's. `acknowledged` is what the writer wrote down of each write that the API server had
    acknowledged; `earlier` and `later` are the ConfigMap's number, read before and after that.
    """

    own: Mapping[str, Sequence[int]]
    copies: Mapping[str, Sequence[int]]
    acknowledged: Sequence[int]
    earlier: int
    later: int

    @property
    def last(self) -> dict[str, int]:
        """How far each counter is, by its name."""
        found = {f"the file on {worker}": _last(numbers) for worker, numbers in self.own.items()}
        return found | {"the writer": _last(self.acknowledged), "the ConfigMap": self.later}


def problems(tally: Tally) -> list[str]:
    """What cannot be where nothing was lost and nothing done twice, one line each."""
    found = [f"the file on {worker} {line}" for worker, numbers in tally.own.items() for line in _holes(numbers)]
    found += [f"the writer {line}" for line in _holes(tally.acknowledged)]
    for worker, numbers in tally.copies.items():
        other = next(name for name in tally.own if name != worker)
        back = [(a, b) for a, b in pairwise(numbers) if b < a]
        found += [f"{worker} has seen {other} go back from {a} to {b}" for a, b in back]
        if _last(numbers) > _last(tally.own[other]):
            found.append(f"{worker} has a copy of {_last(numbers)}, {other} itself is at {_last(tally.own[other])}")
    written = _last(tally.acknowledged)
    if written > tally.later:
        found.append(f"the write of {written} was acknowledged, the ConfigMap is at {tally.later}")
    if tally.earlier > written + 1:
        found.append(f"the ConfigMap is at {tally.earlier}, the writer has come to {written}")
    return found


def gone(before: Tally, after: Tally) -> list[str]:
    """What was seen before a freeze and is not there after a restore to it, one line each."""
    return [
        f"{name} was at {number} before the freeze, and is at {after.last[name]}"
        for name, number in before.last.items()
        if after.last[name] < number
    ]


def standing(before: Tally, after: Tally) -> list[str]:
    """Which counters have not gone on between two looks, one line each."""
    return [f"{name} stays at {number}" for name, number in before.last.items() if after.last[name] <= number]


def bounds(writes: Sequence[Write], suspended: float, resumed: float) -> tuple[int, int]:
    """Between which numbers the witness's must be in a lab that was paused between two times of the host.

    Returns:
        The last that had been acknowledged before, and the last that had been sent until it went on.
    """
    least = max((w.count for w in writes if w.time <= suspended), default=0)
    return least, max((w.count for w in writes if w.began <= resumed), default=0)


def astray(shown: float, earliest: float, latest: float) -> float:
    """By how many seconds a clock is wrong that was read between two times."""
    return max(earliest - shown, shown - latest, 0.0)


def _holes(numbers: Sequence[int]) -> Iterator[str]:
    if numbers and numbers[0] != 1:
        yield f"begins with {numbers[0]}"
    for a, b in pairwise(numbers):
        if b != a + 1:
            yield f"goes from {a} to {b}"


def _last(numbers: Sequence[int]) -> int:
    return numbers[-1] if numbers else 0
