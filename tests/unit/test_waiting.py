"""Several things at a time: all are done, in whatever order, and told in the order in which they were asked for."""

from __future__ import annotations

import threading

import pytest

from lab.waiting import map_parallel


def test_all_are_done_side_by_side_and_told_in_order() -> None:
    together = threading.Barrier(3, timeout=60)

    def act(name: str) -> str:
        together.wait()  # one after another they would wait for ever
        return name.upper()

    assert list(map_parallel(act, ["c", "a", "b"]).items()) == [("c", "C"), ("a", "A"), ("b", "B")]
    assert map_parallel(act, []) == {}


def test_no_more_than_so_many_at_a_time() -> None:
    busy, most = 0, 0
    lock = threading.Lock()

    def act(_number: int) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        with lock:
            busy -= 1

    map_parallel(act, range(50), most=1)
    assert most == 1


def test_a_failure_is_told_once_all_have_ended() -> None:
    done: list[int] = []

    def act(number: int) -> None:
        if number == 0:
            raise ValueError("the first")
        done.append(number)

    with pytest.raises(ValueError, match="the first"):
        map_parallel(act, [0, 1, 2])
    assert sorted(done) == [1, 2]
