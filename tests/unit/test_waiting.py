"""Several things at a time: all are done, in whatever order, and told in the order in which they were asked for."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from lab import waiting
from lab.errors import MachineError
from lab.waiting import background, map_parallel, outcomes, workers


def test_all_are_done_side_by_side_and_told_in_order() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def act(name: str) -> str:
        meeting.wait()  # one after another they would wait for ever
        return name.upper()

    assert list(map_parallel(act, ["c", "a", "b"]).items()) == [("c", "C"), ("a", "A"), ("b", "B")]
    assert map_parallel(act, []) == {}


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_than_so_many_at_a_time(most: int) -> None:
    # One more than there may be would complete the meeting, which ends by its time limit otherwise.
    meeting = threading.Barrier(most + 1)
    met = []

    def act(number: int) -> None:
        try:
            meeting.wait(timeout=0.2)
        except threading.BrokenBarrierError:
            return
        met.append(number)

    map_parallel(act, range(4), most=most)
    assert met == []
    # The same meeting takes place as soon as one more may take part: the test can fail.
    meeting.reset()
    map_parallel(act, range(most + 1), most=most + 1)
    assert len(met) == most + 1


def test_a_failure_keeps_no_other_from_being_done() -> None:
    done: list[int] = []

    def act(number: int) -> None:
        if number < 2:
            raise ValueError(f"number {number}")
        done.append(number)

    with pytest.raises(ValueError, match="number 0"):
        map_parallel(act, range(9), most=2)
    assert sorted(done) == list(range(2, 9))


def test_after_a_failure_the_rest_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    left_out = threading.Event()
    cancel = waiting._cancel

    def act(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError("the first")
        assert left_out.wait(60)

    def cancelled(futures: Any) -> None:
        cancel(futures)
        left_out.set()

    monkeypatch.setattr(waiting, "_cancel", cancelled)
    with pytest.raises(ValueError, match="the first"):
        map_parallel(act, range(1000), most=2, give_up=True)
    assert len(begun) <= 3, "the two, and one more that began before the others were left out"


def test_ctrl_c_makes_the_running_ones_end() -> None:
    ended: list[int] = []
    main, stopped = threading.main_thread().ident or 0, threading.Event()
    begun = threading.Barrier(2, action=lambda: signal.pthread_kill(main, signal.SIGINT))

    def act(number: int) -> None:
        begun.wait(60)  # Ctrl-C is pressed once both run
        assert stopped.wait(60)
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        map_parallel(act, [1, 2], stop=stopped.set)
    assert sorted(ended) == [1, 2]


def test_ctrl_c_while_the_pool_starts_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread runs, and the pool does not know of it."""
    ended: list[int] = []
    begun, stopped = threading.Event(), threading.Event()
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        assert begun.wait(60)
        raise KeyboardInterrupt

    def act(number: int) -> None:
        begun.set()
        assert stopped.wait(60)
        ended.append(number)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        map_parallel(act, [1, 2, 3], stop=stopped.set)
    assert ended == [1]


def test_the_outcome_of_each_is_its_value_or_its_error() -> None:
    def act(name: str) -> str:
        if name == "w1":
            raise MachineError("it does not answer")
        return name.upper()

    found = outcomes(act, ["cp1", "w1", "w2"])
    assert (found["cp1"], found["w2"]) == ("CP1", "W2")
    assert isinstance(found["w1"], MachineError)


def test_something_in_the_background_is_waited_for() -> None:
    gone_on = threading.Event()
    with background(gone_on.wait, 60) as waited:
        assert not waited.done()
        gone_on.set()
    assert waited.done()
    assert waited.result() is True


def test_workers_are_one_at_least() -> None:
    with workers(0) as pool:
        assert pool.submit(str, 1).result() == "1"
