"""No wait for a lock is silent, and nothing that lies in a lock's place is followed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import locks
from lab.errors import Conflict, HostError
from lab.store import Home

WHAT = "the private libvirt"


class Clock:
    """Each pause is over at once, and its time has passed; `at` is called at a moment of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: dict[float, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(locks, "time", clock)
    return clock


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(locks, "_tell", lines.append)
    return lines


@pytest.fixture
def stopped() -> Iterator[int]:
    """A process that Ctrl-Z has stopped."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        child.send_signal(signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        yield child.pid
        child.kill()


def test_a_lock_that_is_free_is_no_wait(tmp_path: Path, clock: Clock, told: list[str]) -> None:
    with locks.locked(tmp_path / ".lock", WHAT):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    with locks.locked(tmp_path / ".lock", WHAT):
        assert (clock.now, told) == (0.0, [])


def test_a_wait_is_told_of_with_who_holds_the_lock(tmp_path: Path, clock: Clock, told: list[str]) -> None:
    file = tmp_path / ".lock"
    holding = locks.locked(file, WHAT)
    holding.__enter__()
    clock.at[25.0] = lambda: holding.__exit__(None, None, None) and None
    with locks.locked(file, WHAT):
        assert 25 <= clock.now < 26
    assert [line.rpartition("; ")[2] for line in told] == ["2 s so far", "12 s so far", "22 s so far"]
    assert told[0].startswith(f"waiting for {WHAT}, which process {os.getpid()} (")
    assert "pytest" in told[0] or "python" in told[0]


def test_a_wait_ends(tmp_path: Path, clock: Clock, told: list[str]) -> None:
    file = tmp_path / ".lock"
    with locks.locked(file, WHAT):
        with pytest.raises(HostError, match=f"waited 60 s for {WHAT}, which process {os.getpid()}") as caught:
            locks.locked(file, WHAT).__enter__()
        assert "Ctrl-C" in caught.value.hint
    assert len(told) == 6


def test_a_holder_that_ctrl_z_has_stopped_is_told_apart(tmp_path: Path, clock: Clock, stopped: int) -> None:
    file = tmp_path / ".lock"
    with locks.locked(file, WHAT):
        file.write_text(str(stopped))
        with pytest.raises(HostError) as caught:
            locks.locked(file, WHAT).__enter__()
    assert f"kill -CONT {stopped}" in caught.value.hint


@pytest.mark.parametrize("text", ["", "none", "-1", "9" * 19, "\u0663", "1\n2"])
def test_a_holder_that_is_not_known(tmp_path: Path, clock: Clock, text: str) -> None:
    file = tmp_path / ".lock"
    with locks.locked(file, WHAT):
        file.write_text(text)
        with pytest.raises(HostError, match=r"which (another process|process 9+) holds"):
            locks.locked(file, WHAT).__enter__()


def test_those_who_share_a_lock_keep_out_who_does_not(tmp_path: Path, clock: Clock, told: list[str]) -> None:
    first, second, third = (locks.open_lock(tmp_path / ".lock") for _ in range(3))
    locks.wait_for(first, WHAT, shared=True)
    locks.wait_for(second, WHAT, shared=True)
    with pytest.raises(HostError, match="which another process holds"):
        locks.wait_for(third, WHAT)
    for handle in (first, second, third):
        os.close(handle)


def _socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))


STRANGE: dict[str, Callable[[Path], object]] = {
    "a folder": lambda file: file.mkdir(),
    "a symbolic link": lambda file: file.symlink_to(file.with_name("precious")),
    "not a regular file": os.mkfifo,
    "a socket": _socket,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_lies_in_a_labs_locks_place_is_left_alone(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "labs" / "precious"
    precious.parent.mkdir()
    precious.write_text("precious")
    STRANGE[kind](tmp_path / "labs" / ".demo.lock")
    with (
        pytest.raises(HostError, match=f"klab's lock .*/.demo.lock is {kind}") as caught,
        Home(tmp_path).lab("demo").lock(),
    ):
        pass
    assert "remove it" in caught.value.hint
    assert precious.read_text() == "precious"


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="symbolic link"):
        locks.open_lock(tmp_path / ".lock")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lab_that_a_stopped_klab_holds(tmp_path: Path, stopped: int) -> None:
    folder = Home(tmp_path).lab("demo")
    with folder.lock():
        (tmp_path / "labs" / ".demo.lock").write_text(str(stopped))
        with pytest.raises(Conflict, match=f"another klab \\(process {stopped}\\)") as caught, folder.lock():
            pass
    assert "time.sleep" in caught.value.details[0]
    assert "kill -CONT" in caught.value.hint
