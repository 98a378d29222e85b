"""What tells whether a lab has left a process: it finds what it is there to find, and nothing of another home."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.host import processes_of

from lab.waiting import Deadline, poll

SLEEP = ("/usr/bin/sleep", "600")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "a home"


@contextlib.contextmanager
def left(*words: str, **variables: str) -> Iterator[str]:
    """A process as klab may leave it; gives its line."""
    with subprocess.Popen(words, env={"PATH": os.environ["PATH"], **variables}, cwd="/") as child:
        try:
            yield f"{child.pid} {' '.join(words)}"
        finally:
            child.kill()


def comes_to(home: Path, wanted: list[str]) -> bool:
    return bool(poll(lambda: processes_of(home) == wanted, Deadline.after(60), every=0.05))


def test_what_was_started_for_the_home_is_found(home: Path) -> None:
    assert processes_of(home) == []
    with left(*SLEEP, KLAB_HOME=str(home)) as line:
        assert comes_to(home, [line])
    with left("/usr/bin/tail", "-f", f"{home}/log", os.devnull) as line:
        assert comes_to(home, [line])
    with left(*SLEEP, PATH=f"{home}:/bin") as line:
        assert comes_to(home, [line])
    assert processes_of(home) == []


def test_what_another_home_has_started_is_not(home: Path) -> None:
    other = home.with_name(f"{home.name}2")
    with left(*SLEEP, KLAB_HOME=str(other)) as line:
        assert comes_to(other, [line])
        assert processes_of(home) == []
