"""What klab is in the middle of, on disk, so that the next command finds it after a kill.

One file for an attempt. Each step stands in it before the step begins; when the attempt has come
to its end, one way or the other, the file goes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from lab.errors import LabError
from lab.store import LabFolder, write_atomic

Act = Literal["snapshot", "restore", "remove"]
# In the order in which they are taken; each stands in the journal before it begins.
STEPS: dict[str, tuple[str, ...]] = {
    "snapshot": ("look", "suspend", "save", "resume", "clocks", "digest", "manifest"),
    # "back" and "undone" are its way back, "keep" is its end.
    "restore": ("suspend", "save", "revert", "resume", "clocks", "verify", "back", "undone", "keep"),
    "remove": ("manifests", "files", "digest"),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    `id` is the snapshot that is being made, empty for none; `target` the one that is being restored.
    `running` are the nodes that ran when it began. `data` is what its end needs to know.
    """

    act: Act
    step: str
    id: str = ""
    target: str = ""
    running: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    began: float = 0.0
    process: int = 0
    data: dict[str, Any] = field(default_factory=dict)

    def reached(self, step: str) -> bool:
        """Whether it has begun a step."""
        steps = STEPS[self.act]
        return steps.index(self.step) >= steps.index(step)


class AttemptJournal:
    """The attempt of one lab; the caller holds the lab's lock."""

    def __init__(self, folder: LabFolder) -> None:
        self._file = folder.attempt
        self.seconds: dict[str, float] = {}

    def read(self) -> Attempt | None:
        """The attempt that has not come to its end; None where there is none.

        Raises:
            LabError: the file is damaged.
        """
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            attempt = Attempt(**{**found, "running": tuple(found["running"]), "nodes": tuple(found["nodes"])})
            attempt.reached(attempt.step)
            _check(attempt)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise LabError(
                "what klab wrote down of an unfinished snapshot or restore is damaged",
                details=[f"{self._file}: {error}"],
                hint="remove that file; klab start resumes machines that stand still",
            ) from error
        return attempt

    def begin(self, attempt: Attempt) -> Attempt:
        return self._write(replace(attempt, began=time.time(), process=os.getpid()))

    @contextmanager
    def step(self, attempt: Attempt, step: str, **data: Any) -> Iterator[Attempt]:
        """Write a step down, then let it be done; how long it takes is kept in `seconds`."""
        noted = self._write(replace(attempt, step=step, data={**attempt.data, **data}))
        began = time.monotonic()
        try:
            yield noted
        finally:
            self.seconds[step] = time.monotonic() - began

    def end(self) -> None:
        """The attempt has come to its end."""
        self._file.unlink(missing_ok=True)

    def _write(self, attempt: Attempt) -> Attempt:
        # Not to be waited for: what was just saved lies before it in the queue to the disk, and the lab stands still.
        write_atomic(self._file, json.dumps(asdict(attempt), indent=2) + "\n", durable=False)
        return attempt


def _check(attempt: Attempt) -> None:
    texts = (attempt.id, attempt.target, *attempt.running, *attempt.nodes)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is not text")
    if type(attempt.process) is not int or type(attempt.began) not in {int, float}:
        raise TypeError("a number is not a number")
    if not isinstance(attempt.data, dict):
        raise TypeError("data is not a set of keys")
