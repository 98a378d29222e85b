"""Which threads are in a private libvirt, and whether one may end it: by a lock that processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.host.visitors import Visitors

# Shares the lock until its standard input ends.
OTHER = """
import sys
from pathlib import Path
from lab.host.visitors import visitors
visitors.add(Path(sys.argv[1]))
print("shares", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.lock"


@pytest.fixture
def ours() -> Iterator[Visitors]:
    made = Visitors()
    yield made
    for handle, _ in made._held.values():
        os.close(handle)


@contextmanager
def another_process(file: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "shares\n"
        yield
        assert other.stdin is not None
        other.stdin.close()
    assert other.returncode == 0


def elsewhere(act: Callable[[], object]) -> object:
    """What it returns in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


def test_where_nobody_is(file: Path, ours: Visitors) -> None:
    assert ours.alone(file, inside=False)
    with another_process(file):
        assert not ours.alone(file, inside=False)
    assert ours.alone(file, inside=False)


def test_a_thread_that_enters_again_is_still_one(file: Path, ours: Visitors) -> None:
    """A command enters for its lab, and once more to finish what another has left; it may end the libvirt then."""
    ours.stay(file)
    ours.stay(file)
    ours.add(file)
    assert ours.alone(file, inside=True)
    ours.drop(file)
    assert not Visitors().alone(file, inside=False), "it is still in there"


def test_who_has_entered_in_a_block_has_left_after_it(file: Path, ours: Visitors) -> None:
    ours.add(file)
    ours.add(file)
    ours.drop(file)
    assert not Visitors().alone(file, inside=False)
    ours.drop(file)
    assert Visitors().alone(file, inside=False)


def test_another_thread_inside_keeps_it(file: Path, ours: Visitors) -> None:
    entered, leave = threading.Event(), threading.Event()

    def visit() -> None:
        ours.add(file)
        entered.set()
        assert leave.wait(60)
        ours.drop(file)

    with ThreadPoolExecutor(1) as pool:
        visiting = pool.submit(visit)
        assert entered.wait(60)
        try:
            assert not ours.alone(file, inside=False), "this thread is not inside, and the other is"
            ours.add(file)
            assert not ours.alone(file, inside=True)
        finally:
            leave.set()
    visiting.result()
    assert ours.alone(file, inside=True)


def test_a_thread_may_end_what_the_one_that_has_made_it_is_in(file: Path, ours: Visitors) -> None:
    ours.stay(file)
    assert elsewhere(lambda: ours.alone(file, inside=True))
    assert not elsewhere(lambda: ours.alone(file, inside=False))


def test_who_asks_in_vain_is_still_counted(file: Path, ours: Visitors) -> None:
    """The kernel lets go of a share where it refuses to make an exclusive lock of it (flock(2))."""
    ours.stay(file)
    with another_process(file):
        assert not ours.alone(file, inside=True)
    assert not Visitors().alone(file, inside=False)
    assert ours.alone(file, inside=True)
