"""Where the command `klab` begins, on systems that it does not run on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab.errors import HostError

# What is missing on Windows and macOS cannot be imported, nor asked for.
ELSEWHERE = """
import os, sys
for name in ("fcntl", "pwd", "grp", "termios", "resource"):
    sys.modules[name] = None
{change}
sys.argv = ["klab", *{words}]
from lab.cli.main import main
main()
"""
CHANGES = {
    "win32 on another processor": "sys.platform = 'win32'; del os.uname",
    "darwin on arm64": "sys.platform = 'darwin'; os.uname = lambda: type('', (), {'machine': 'arm64'})",
    "darwin on x86_64": "sys.platform = 'darwin'",
    "linux on aarch64": "os.uname = lambda: type('', (), {'machine': 'aarch64'})",
}


@pytest.mark.parametrize("words", [["--help"], ["create", "1m2w"], []])
@pytest.mark.parametrize("told", CHANGES)
def test_other_systems_are_told_at_once(told: str, words: list[str]) -> None:
    script = ELSEWHERE.format(change=CHANGES[told], words=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == HostError.exit_code
    assert done.stdout == ""
    first, hint = done.stderr.splitlines()
    assert first == f"error: klab runs on Linux on x86_64 only; this is {told}"
    assert hint.startswith("hint: ")


def test_linux_on_x86_64_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['klab', '--help']; from lab.cli.main import main; main()"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("Usage")
