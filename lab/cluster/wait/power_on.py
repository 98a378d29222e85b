"""The machines' `up` in a thread: nodes bootstrap while Vagrant still waits for the slowest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from lab.errors import ClusterError, LabError, refusal
from lab.machines.protocol import Machines
from lab.waiting import Deadline, thread


class PowerOn:
    """One `up` of machines, in a thread of its own; its output goes to a log."""

    def __init__(self, machines: Machines, nodes: Sequence[str], deadline: Deadline, log: Path) -> None:
        self.error: BaseException | None = None
        self._machines = machines
        self._nodes = nodes
        self._deadline = deadline
        self._log = log
        self._thread = thread(self._up, "power-on", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Stop it; machines that it has begun to make are left for the next `create`."""
        self._machines.cancel()
        self._thread.join(timeout=30)

    def ended(self) -> bool:
        """Whether it has finished without an error."""
        return not self._thread.is_alive() and self.error is None

    def _up(self) -> None:
        try:
            with self._log.open("a", encoding="utf-8") as out:
                self._machines.up(self._deadline, lambda line: _write(out, line), self._nodes)
        except LabError as error:
            self.error = error
        except Exception as error:
            hint = "free space there or change the permissions, then run the same command again to continue"
            self.error = refusal(error, hint=hint)
            self.error = self.error or ClusterError(
                f"powering on failed unexpectedly: {error!r}", hint="run again with --debug"
            )


def _write(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()
