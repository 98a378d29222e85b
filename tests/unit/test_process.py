"""The one door to other programs, where what is told of them goes wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lab import process
from lab.errors import HostError, ProgramError
from lab.waiting import map_parallel

# More than a pipe holds.
TALKS = "for i in range(20000): print('a line of some length', i)"


def test_a_program_that_talks_on_ends_though_its_lines_cannot_be_kept() -> None:
    """As with a log on a full disk: it would wait for a reader until its time is up."""
    told: list[str] = []

    def full(line: str) -> None:
        told.append(line)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        process.run([sys.executable, "-c", TALKS], timeout=300, on_line=full)
    assert told == ["a line of some length 0"]


def test_a_log_that_cannot_be_written() -> None:
    with pytest.raises(OSError, match="No space left"):
        process.run([sys.executable, "-c", TALKS], timeout=300, log=Path("/dev/full"))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 2)", 128 + signal.SIGINT),
        ("import os; os.kill(os.getpid(), 15)", 128 + signal.SIGTERM),
    ],
)
def test_a_program_on_the_persons_terminal_ends_as_it_would_in_a_shell(code: str, told: int) -> None:
    words = [sys.executable, "-c", f"import signal; signal.signal(2, signal.SIG_DFL); {code}"]
    assert process.attach(words) == told


@pytest.mark.parametrize(
    ("program", "hint"),
    [
        ("VBoxManage", "virtualbox.org"),
        ("tmux", "sudo apt-get install tmux"),
        ("kubectl", "klab box build brings one"),
    ],
)
def test_a_program_that_is_missing_comes_with_the_way_to_it(
    program: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process.shutil, "which", lambda *_, **__: None)
    with pytest.raises(HostError, match=f"{program} is not installed") as caught:
        process.find(program)
    assert hint in caught.value.hint


FLOODS = {
    "lines": "while True: print('not again')",
    "one line": "import sys\nwhile True: sys.stdout.write('x' * 4096)",
    "errors": "import sys\nwhile True: print('not again', file=sys.stderr)",
}


@pytest.mark.parametrize("code", FLOODS.values(), ids=FLOODS)
def test_a_program_that_prints_without_end_is_stopped(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_OUTPUT", 1 << 20)
    with pytest.raises(ProgramError, match="printed more than 1 MiB and was stopped") as caught:
        process.run([sys.executable, "-c", code], timeout=300, check=False)
    assert caught.value.hint
    assert len(caught.value.details[-1]) < 1000


def test_a_line_without_end_is_told_in_parts() -> None:
    told: list[str] = []
    done = process.run([sys.executable, "-c", "print('x' * 200_000)"], timeout=300, on_line=told.append)
    assert "".join(told) == done.stdout.rstrip("\n") == "x" * 200_000
    assert max(map(len, told)) == process.MOST_IN_LINE
    assert done.tail[0].endswith("(199000 more characters)")


@pytest.mark.parametrize(("code", "exit_code"), [("raise SystemExit(3)", 3), ("pass", 0)])
def test_what_a_program_prints_may_go_through_klab(code: str, exit_code: int) -> None:
    told: list[bytes] = []
    program = f"import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True); {code}"
    assert process.attach([sys.executable, "-c", program], through=told.append) == exit_code
    assert b"".join(told) == b"out\nerr\n"


def test_a_variable_that_is_none_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAB_ENV_GONE", "1")
    monkeypatch.setenv("KLAB_ENV_STAYS", "1")
    shown = process.run(["env"], timeout=30, env={"KLAB_ENV_GONE": None, "KLAB_ENV_NEW": "2"}).stdout.splitlines()
    assert sorted(line for line in shown if line.startswith("KLAB_ENV_")) == ["KLAB_ENV_NEW=2", "KLAB_ENV_STAYS=1"]


def test_ctrl_c_ends_the_programs_of_other_threads_together() -> None:
    """Also those that begin only then, as the second one of a thread does."""
    main, begun = threading.main_thread().ident or 0, threading.Barrier(2)
    codes: list[int] = []

    def act(_number: int) -> None:
        def started(_child: subprocess.Popen[str]) -> None:
            if begun.wait(60) == 0:
                signal.pthread_kill(main, signal.SIGINT)

        codes.append(process.run(["sleep", "600"], timeout=900, check=False, on_start=started).code)
        codes.append(process.run(["sleep", "600"], timeout=900, check=False).code)

    with process.ended_together() as stop, pytest.raises(KeyboardInterrupt):
        map_parallel(act, [1, 2], stop=stop)
    assert codes == [-signal.SIGTERM] * 4
    assert process.run(["true"], timeout=60).code == 0
