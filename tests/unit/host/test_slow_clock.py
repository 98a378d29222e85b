from __future__ import annotations

import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.guest_clock import GuestClock
from lab.host.emulation import pace, slow_clock
from lab.store import Home

# Asks the kernel itself, past what is preloaded: vDSO functions are no system calls.
KERNEL = """
import ctypes, select, threading, time
libc = ctypes.CDLL(None)
def kernel(clock):
    parts = (ctypes.c_long * 2)()
    libc.syscall(228, clock, parts)  # clock_gettime on x86-64
    return parts[0] + parts[1] / 1e9
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("compiled") / "slow_clock.so"
    slow_clock.compile_library(file)
    return file


def run(library: Path, code: str, **variables: str) -> list[float]:
    """Run a Python in QEMU's place."""
    done = subprocess.run(
        [sys.executable, "-c", KERNEL + code],
        env={"PATH": "/usr/bin:/bin", "LD_PRELOAD": str(library), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "LD_PRELOAD" not in done.stderr
    return [float(word) for word in done.stdout.split()]


def test_without_a_rate_it_is_real_time(library: Path) -> None:
    before, shown, after = run(library, "print(kernel(0), time.time(), kernel(0))")
    assert before - 1e-3 <= shown <= after + 1e-3


@pytest.mark.parametrize("epoch", [1000000000.5, 4000000000.0])
def test_every_start_is_on_one_timeline(library: Path, epoch: float) -> None:
    for _ in range(2):
        code = "print(kernel(0), time.time(), kernel(0))"
        before, shown, after = run(library, code, KLAB_EPOCH=repr(epoch), KLAB_RATE="0.25")
        first, last = (GuestClock(epoch, 0.25).guest(now) for now in (before, after))
        assert first - 1e-3 <= shown <= last + 1e-3


def test_the_clock_that_counts_runs_at_the_rate(library: Path) -> None:
    code = "print(kernel(1), time.monotonic(), kernel(1))"
    before, shown, after = run(library, code, KLAB_EPOCH="1000000000", KLAB_RATE="0.25")
    assert before * 0.25 - 1e-3 <= shown <= after * 0.25 + 1e-3


@pytest.mark.parametrize(
    "wait",
    [
        "select.poll().poll(20)",
        "select.epoll().poll(0.02)",
        # What QEMU's main loop calls; libfaketime 0.9.10 lets time-outs below a second pass as they are.
        "libc.ppoll(None, 0, (ctypes.c_long * 2)(0, 20_000_000), None)",
        "mutex, condition = (ctypes.c_long * 8)(), (ctypes.c_long * 8)(); at = time.time() + 0.02; "
        "libc.pthread_mutex_lock(mutex); "
        "libc.pthread_cond_timedwait(condition, mutex, (ctypes.c_long * 2)(int(at), int(at % 1 * 1e9)))",
    ],
    ids=["poll", "epoll_wait", "ppoll", "pthread_cond_timedwait"],
)
def test_waits_take_as_much_longer(library: Path, wait: str) -> None:
    code = f"began = kernel(1); {wait}; print(kernel(1) - began)"
    (seconds,) = run(library, code, KLAB_EPOCH="1000000000", KLAB_RATE="0.25")
    assert seconds >= 0.079


# --- where it lies ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(slow_clock, "FOLDER", tmp_path / "lib" / "klab")
    return tmp_path / "lib" / "klab"


def test_it_belongs_where_apparmor_lets_a_guests_qemu_map_it() -> None:
    """apparmor 3.1, abstractions/base: `/{usr/,}lib{,32,64}/**.so* mr`; nothing of the kind for /usr/local."""
    assert str(slow_clock.installed()).startswith("/usr/lib/")
    assert slow_clock.installed().suffix == ".so"


def test_root_installs_it_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clock.os, "geteuid", lambda: 0)
    library = slow_clock.ensure_library(Home(tmp_path))
    assert [library] == list(folder.iterdir())
    assert stat.S_IMODE(library.stat().st_mode) == 0o644
    before = library.stat().st_mtime_ns
    assert slow_clock.ensure_library(Home(tmp_path)).stat().st_mtime_ns == before


def test_anybody_else_gets_the_command_that_installs_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_clock.os, "geteuid", lambda: 1000)
    home = Home(tmp_path / "my klab")
    with pytest.raises(HostError, match="is not installed") as caught:
        slow_clock.ensure_library(home)
    command = caught.value.hint.partition(";")[0]
    words = shlex.split(command)
    assert words[0] == "sudo"
    subprocess.run(words[1:], check=True)
    assert slow_clock.ensure_library(home) == slow_clock.installed(), "nothing more to do"
    assert "KLAB_DILATION=1" in caught.value.hint


def test_another_klabs_library_is_left_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clock.os, "geteuid", lambda: 0)
    first = slow_clock.ensure_library(Home(tmp_path))
    changed = tmp_path / "slow_clock.c"
    changed.write_text(slow_clock.SOURCE.read_text() + "\n/* newer */\n")
    monkeypatch.setattr(slow_clock, "SOURCE", changed)
    assert slow_clock.ensure_library(Home(tmp_path)) != first
    assert first.is_file()


def test_a_system_that_takes_no_files_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clock.os, "geteuid", lambda: 0)
    folder.parent.write_text("in the way")
    with pytest.raises(HostError, match="cannot be installed") as caught:
        slow_clock.ensure_library(Home(tmp_path))
    assert "KLAB_DILATION=1" in caught.value.hint


def test_a_missing_compiler_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clock, "COMPILER", "gcc-that-is-not-there")
    with pytest.raises(HostError, match="gcc-that-is-not-there") as caught:
        slow_clock.ensure_library(Home(tmp_path))
    assert "KLAB_DILATION=1" in caught.value.hint


# --- the rate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "fast", ""])
def test_a_rate_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAB_DILATION", text)
    with pytest.raises(HostError, match="KLAB_DILATION"):
        pace.wanted_rate(0.3)


def test_the_environment_sets_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAB_DILATION", "0.5")
    assert pace.wanted_rate(0.3) == 0.5
    monkeypatch.delenv("KLAB_DILATION")
    assert pace.wanted_rate(0.3) == 0.3
