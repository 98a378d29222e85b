"""One deadline, handed down, instead of time limits inside time limits; and several things at a time, in threads."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from lab.errors import LabError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

P = ParamSpec("P")
T = TypeVar("T")
Q = TypeVar("Q", bound=Hashable)
AT_ONCE = 64  # threads: more than a lab has nodes
ASKED_AT_ONCE = 16


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
    import tenacity  # late: it brings asyncio, which a deadline alone does not need

    retry = tenacity.Retrying(
        sleep=time.sleep,
        retry=tenacity.retry_if_not_result(bool),
        stop=lambda _state: deadline.passed,
        wait=lambda _state: min(every, deadline.left),
        retry_error_callback=lambda _state: None,
    )
    return retry(probe)


def workers(most: int) -> Executor:
    """At most so many threads, for tasks of several kinds; leaving its context waits for all of them."""
    from concurrent.futures import ThreadPoolExecutor  # late, as all of it: a deadline alone does not need it

    context = contextvars.copy_context()
    return ThreadPoolExecutor(max(1, most), "klab", initializer=_enter, initargs=(context,))


def thread(act: Callable[[], object], name: str, *, daemon: bool = False) -> threading.Thread:
    """A thread, not yet started, with the context variables of the one that makes it, such as the lab it logs for."""
    return threading.Thread(target=contextvars.copy_context().run, args=(act,), name=name, daemon=daemon)


def _enter(context: contextvars.Context) -> None:
    """Give this thread the context variables of the thread that has made it."""
    for variable, value in context.items():
        variable.set(value)


@contextlib.contextmanager
def background(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Iterator[Future[T]]:
    """Do one thing in a thread beside the block; leaving the block waits for it. A failure is told by `result()`."""
    with workers(1) as pool:
        yield pool.submit(act, *args, **kwargs)


def map_parallel(
    act: Callable[[Q], T],
    items: Sequence[Q],
    *,
    most: int = AT_ONCE,
    give_up: bool = False,
    stop: Callable[[], None] | None = None,
) -> dict[Q, T]:
    """What `act` returns for each of these, done side by side, in their order.

    A failure of one does not keep the others from being done.

    Args:
        act: done for each, in a thread.
        items: no two are equal.
        most: how many at a time.
        give_up: once one has failed, those that have not begun are left out.
        stop: called where Ctrl-C is pressed meanwhile; it makes the running ones end soon.

    Raises:
        Exception: the first failure, in the order of the items, once all have ended.
    """
    from concurrent.futures import FIRST_EXCEPTION, wait

    running = _Running()
    with workers(min(most, len(items))) as pool:
        futures: dict[Q, Future[T]] = {}
        try:
            for item in items:
                futures[item] = pool.submit(running.run, act, item)
            if give_up:
                wait(futures.values(), return_when=FIRST_EXCEPTION)
                _cancel(futures.values())
            errors = [future.exception() for future in futures.values() if not future.cancelled()]
        except BaseException:
            _cancel(futures.values())
            running.end(stop)
            raise
    for error in errors:
        if error is not None:
            raise error
    return {item: future.result() for item, future in futures.items()}


class _Running:
    """What runs. A pool that Ctrl-C has met while it started a thread does not know of that thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ending = False
        self._begun: list[threading.Event] = []

    def run(self, act: Callable[[Q], T], item: Q) -> T:
        from concurrent.futures import CancelledError

        ended = threading.Event()
        with self._lock:
            if self._ending:
                raise CancelledError
            self._begun.append(ended)
        try:
            return act(item)
        finally:
            ended.set()

    def end(self, stop: Callable[[], None] | None) -> None:
        """Let nothing more begin, make what runs end soon, and wait for it."""
        with self._lock:
            self._ending = True
        if stop is not None:
            stop()
        for each in self._begun:
            each.wait()


def outcomes(act: Callable[[Q], T], items: Sequence[Q], *, most: int = ASKED_AT_ONCE) -> dict[Q, T | LabError]:
    """As `map_parallel`, with the LabError of each that failed in place of what it should return."""

    def one(item: Q) -> T | LabError:
        try:
            return act(item)
        except LabError as error:
            return error

    return map_parallel(one, items, most=most)


def _cancel(futures: Iterable[Future[T]]) -> None:
    """Leave out those that have not begun."""
    for future in futures:
        future.cancel()
