"""Start-up costs, as ratios to `python -c pass` in the same run: help at most 5, plan at most 12.

CPU seconds of the quietest run of each, since other work on the machine can only add to them; where that is much, so
many more are tried.
"""

from __future__ import annotations

import compileall
import os
import sys
from pathlib import Path

import pytest

import lab

RUNS = 9
RUNS_WHEN_BUSY = 45
KLAB = Path(sys.executable).with_name("klab")


def cpu_seconds(command: list[str], home: Path) -> float:
    """User and system time of one run, its children's included."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"KLAB_HOME": str(home)}
    pid = os.posix_spawn(command[0], command, env, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
    _, status, used = os.wait4(pid, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize(("words", "most"), [(["--help"], 5), (["plan", "1m2w"], 12)])
def test_start_up_is_quick(words: list[str], most: float, tmp_path: Path) -> None:
    compileall.compile_dir(Path(lab.__file__).parent, quiet=2)
    commands = {"nothing": [sys.executable, "-c", "pass"], "klab": [str(KLAB), *words]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(RUNS_WHEN_BUSY):
        for name, command in commands.items():
            seconds[name].append(cpu_seconds(command, tmp_path))
        ratio = min(seconds["klab"]) / min(seconds["nothing"])
        if run + 1 >= RUNS and ratio <= most:
            break
    assert ratio <= most, f"klab {' '.join(words)}: {ratio:.1f} times python -c pass"
