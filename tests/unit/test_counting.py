"""The judge of the snapshot tests: it finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.counting import Tally, astray, bounds, gone, problems, standing
from support.witness import Write

GOOD = Tally({"w1": [1, 2, 3, 4], "w2": [1, 2, 3]}, {"w1": [1, 1, 3], "w2": [2, 4]}, [1, 2, 3], 3, 4)


def test_a_lab_that_lost_nothing() -> None:
    assert problems(GOOD) == []
    assert problems(replace(GOOD, earlier=4)) == [], "written, and not yet written down"
    assert problems(Tally({"w1": [], "w2": []}, {"w1": [], "w2": []}, [], 0, 0)) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"own": {"w1": [1, 2, 4], "w2": [1, 2, 3]}}, "the file on w1 goes from 2 to 4"),
        ({"own": {"w1": [1, 2, 3, 4], "w2": [1, 2, 2, 3]}}, "the file on w2 goes from 2 to 2"),
        ({"own": {"w1": [1, 2, 3, 4], "w2": [2, 3]}}, "the file on w2 begins with 2"),
        ({"acknowledged": [1, 2, 3, 2, 3]}, "the writer goes from 3 to 2"),
        ({"copies": {"w1": [3, 2], "w2": []}}, "w1 has seen w2 go back from 3 to 2"),
        ({"copies": {"w1": [4], "w2": []}}, "w1 has a copy of 4, w2 itself is at 3"),
        ({"later": 2}, "the write of 3 was acknowledged, the ConfigMap is at 2"),
        ({"earlier": 5, "later": 5}, "the ConfigMap is at 5, the writer has come to 3"),
    ],
)
def test_what_was_lost_or_done_twice_is_named(change: dict[str, object], line: str) -> None:
    assert line in problems(replace(GOOD, **change))


def test_what_was_there_before_must_be_there_after() -> None:
    ahead = Tally({"w1": [*range(1, 9)], "w2": [1, 2, 3, 4]}, GOOD.copies, [1, 2, 3, 4], 4, 5)
    assert gone(GOOD, GOOD) == []
    assert gone(GOOD, ahead) == []
    assert gone(ahead, GOOD) == [
        "the file on w1 was at 8 before the freeze, and is at 4",
        "the file on w2 was at 4 before the freeze, and is at 3",
        "the writer was at 4 before the freeze, and is at 3",
        "the ConfigMap was at 5 before the freeze, and is at 4",
    ]
    assert standing(GOOD, ahead) == []
    assert standing(GOOD, replace(ahead, acknowledged=[1, 2, 3])) == ["the writer stays at 3"]


def test_the_witness_bounds() -> None:
    writes = [Write(7, 10.0, 10.5), Write(8, 11.0, 11.5), Write(9, 12.0, 19.0), Write(10, 19.5, 20.0)]
    assert bounds(writes, suspended=11.6, resumed=18.0) == (8, 9)
    assert bounds(writes, suspended=11.4, resumed=11.45) == (7, 8)
    assert bounds([], suspended=1.0, resumed=2.0) == (0, 0)


def test_a_clock_is_right_while_it_was_read() -> None:
    assert astray(5.0, 4.0, 6.0) == 0
    assert astray(3.0, 4.0, 6.0) == 1
    assert astray(8.5, 4.0, 6.0) == 2.5
