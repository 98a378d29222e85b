"""Runs a driver again and again, each time in a process of its own that a test can kill, without importing klab again.

To import it takes half a second of a processor, and the drivers run some two hundred times. One process imports, and
each run is a fork of it.

python -m contract.offspring MODULE
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TESTS = Path(__file__).parents[1]
# What a driver imports only when it comes to it.
LATER = ("libvirt", "lab.machines.libvirt.machines", "lab.machines.vagrant.command", "vagrant")


class Offspring:
    """The process that has imported a driver. `with` ends it."""

    def __init__(self, module: str) -> None:
        words = [sys.executable, "-m", "contract.offspring", module]
        self._parent = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS)

    def __enter__(self) -> Offspring:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._parent.communicate()

    def run(
        self, words: Sequence[str], limit: int, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the driver once.

        Args:
            words: its command line.
            limit: after so many seconds it is ended by SIGALRM.
            variables: what its environment has beside that of the process that imported it.

        Returns:
            Its exit code, or the negative number of the signal that ended it, and what it printed.
        """
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            printed = [Path(folder) / name for name in ("out", "err")]
            order = {"words": [*words], "limit": limit, "variables": {**(variables or {})}}
            self._parent.stdin.write(json.dumps({**order, "printed": [*map(str, printed)]}) + "\n")
            self._parent.stdin.flush()
            code = int(self._parent.stdout.readline())
            return subprocess.CompletedProcess([*words], code, *(file.read_text() for file in printed))


def main() -> None:
    for name in LATER:
        importlib.import_module(name)
    driver = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _become(**json.loads(line))
            driver.main()
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - whoever ordered reads this


def _become(words: list[str], limit: int, variables: dict[str, str], printed: list[str]) -> None:
    """Be as if started again with this command line."""
    files = [os.open(os.devnull, os.O_RDONLY), *(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600) for file in printed)]
    for stream, file in enumerate(files):
        os.dup2(file, stream)
        os.close(file)
    os.environ.update(variables)
    sys.argv[1:] = words
    signal.alarm(limit)


if __name__ == "__main__":
    main()
