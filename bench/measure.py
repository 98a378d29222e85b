"""Small tools for the benches: run the two sides in turn, report medians and their ratio."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """One comparison: medians of both sides, and the ratio wanted at most; None where none is wanted."""

    what: str
    klab: float
    peer: float
    at_most: float | None
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.klab / self.peer

    @property
    def verdict(self) -> str:
        if self.at_most is None:
            return ""
        return "met" if self.ratio <= self.at_most else "NOT met"

    def row(self) -> str:
        cells = [
            self.what,
            f"{self.klab:.3g} {self.unit}",
            f"{self.peer:.3g} {self.unit}",
            f"{self.ratio:.2f}",
            "" if self.at_most is None else f"{self.at_most:.3g}",
            self.verdict,
        ]
        return f"| {' | '.join(cells)} |"


HEADER = "| klab against | klab | peer | ratio | at most | |\n| --- | --- | --- | --- | --- | --- |"


def wall_seconds(argv: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Wall time of one run."""
    began = time.monotonic()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    return time.monotonic() - began


def in_turn(what: str, klab: Sequence[str], peer: Sequence[str], *, at_most: float, runs: int) -> Pair:
    """Both commands in turn, A B A B, after one run each to warm up; medians of wall time."""
    sides: tuple[list[float], list[float]] = ([], [])
    for i in range(runs + 1):
        for side, argv in zip(sides, (klab, peer), strict=True):
            seconds = wall_seconds(argv)
            if i:
                side.append(seconds)
    return Pair(what, statistics.median(sides[0]), statistics.median(sides[1]), at_most)
