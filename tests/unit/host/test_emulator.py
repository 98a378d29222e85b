from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.files import make_private
from lab.guest_clock import GuestClock
from lab.host.emulation import emulator, pace
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
    return emulator.write_library(Home(tmp_path_factory.mktemp("compiled")))


@pytest.fixture
def wrapper(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wrapper around a Python in QEMU's place."""
    (tmp_path / "bin").mkdir()
    shutil.copy2(library, tmp_path / "bin")
    find = emulator.process.find
    monkeypatch.setattr(emulator.process, "find", lambda name: sys.executable if name == emulator.QEMU else find(name))
    return emulator.write_wrapper(Home(tmp_path))


def run(wrapper: Path, code: str, **variables: str) -> list[float]:
    done = subprocess.run(
        [wrapper, "-c", KERNEL + code],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


def test_without_a_rate_it_is_plain_qemu(wrapper: Path) -> None:
    assert run(wrapper, "import os; print(float('LD_PRELOAD' in os.environ))") == [0.0]


@pytest.mark.parametrize("epoch", [1000000000.5, 4000000000.0])
def test_every_start_is_on_one_timeline(wrapper: Path, epoch: float) -> None:
    for _ in range(2):
        code = "print(kernel(0), time.time(), kernel(0))"
        before, shown, after = run(wrapper, code, KLAB_EPOCH=repr(epoch), KLAB_RATE="0.25")
        first, last = (GuestClock(epoch, 0.25).guest(now) for now in (before, after))
        assert first - 1e-3 <= shown <= last + 1e-3


def test_the_clock_that_counts_runs_at_the_rate(wrapper: Path) -> None:
    code = "print(kernel(1), time.monotonic(), kernel(1))"
    before, shown, after = run(wrapper, code, KLAB_EPOCH="1000000000", KLAB_RATE="0.25")
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
def test_waits_take_as_much_longer(wrapper: Path, wait: str) -> None:
    code = f"began = kernel(1); {wait}; print(kernel(1) - began)"
    (seconds,) = run(wrapper, code, KLAB_EPOCH="1000000000", KLAB_RATE="0.25")
    assert seconds >= 0.079


def test_the_library_is_compiled_once(tmp_path: Path) -> None:
    library = emulator.write_library(Home(tmp_path))
    before = library.stat().st_mtime_ns
    assert emulator.write_library(Home(tmp_path)).stat().st_mtime_ns == before
    assert [file.name for file in library.parent.glob("slow_clock*")] == [library.name]


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(emulator, "COMPILER", "gcc-that-is-not-there")
    with pytest.raises(HostError, match="gcc-that-is-not-there") as caught:
        emulator.write_library(Home(tmp_path))
    assert "KLAB_DILATION=1" in caught.value.hint


@pytest.mark.parametrize("name", ["with blank", "with:colon", "with$LIB"])
def test_a_home_that_the_loader_cannot_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(HostError, match="preload") as caught:
        emulator.write_library(Home(tmp_path / name))
    assert "KLAB_HOME" in caught.value.hint


def test_an_unchanged_wrapper_is_not_written_again(wrapper: Path, tmp_path: Path) -> None:
    before = wrapper.stat().st_mtime_ns
    emulator.write_wrapper(Home(tmp_path))
    assert wrapper.stat().st_mtime_ns == before


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


def test_a_closed_folder_on_the_way_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "theirs"
    closed.mkdir(mode=0o700)
    home = Home(closed / "klab")
    (home.root / "bin").mkdir(parents=True)
    with pytest.raises(HostError) as caught:
        emulator.check_reachable(home.root / "bin" / "wrapper", home)
    assert f"closed to others: {closed}" in caught.value.details


def test_klabs_own_folder_is_opened_for_qemu_and_the_labs_stay_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "klab")
    make_private(home.root / "bin")
    # Where pytest keeps its folders is closed to others, too.
    monkeypatch.setattr(Path, "parents", property(lambda file: [home.root / "bin", home.root]))
    emulator.check_reachable(home.root / "bin" / "wrapper", home)
    monkeypatch.undo()
    modes = {folder.name: folder.stat().st_mode & 0o777 for folder in (home.root, home.root / "bin", home.labs)}
    assert modes == {"klab": 0o711, "bin": 0o755, "labs": 0o700}


@pytest.mark.parametrize("name", ["it's", "a&b", "a;b", "`>gone`", "(", '"', "a`b", "\\", "*"])
def test_the_wrapper_works_in_a_folder_of_any_name(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    home = tmp_path / name
    (home / "bin").mkdir(parents=True)
    shutil.copy2(library, home / "bin")
    find = emulator.process.find
    monkeypatch.setattr(emulator.process, "find", lambda name: sys.executable if name == emulator.QEMU else find(name))
    monkeypatch.chdir(tmp_path)
    wrapper = emulator.write_wrapper(Home(home))
    code = "import os; print(float(os.path.isfile(os.environ['LD_PRELOAD'])), float(time.time() < 2e9))"
    assert run(wrapper, code, KLAB_EPOCH="1000000000", KLAB_RATE="0.25") == [1.0, 1.0]
    assert not (tmp_path / "gone").exists()
