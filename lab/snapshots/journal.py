"""The unfinished attempt of a lab, on disk, so that the next command finds it after a kill.

Each step is written before it begins; when the attempt has been finished or undone, the file is deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from lab import records
from lab.errors import LabError, Remedy
from lab.files import write_atomic
from lab.store import LabFolder

Act = Literal["snapshot", "restore", "remove"]
# In the order in which they are taken; each is written to the journal before it begins.
STEPS: dict[str, tuple[str, ...]] = {
    "snapshot": ("look", "suspend", "save", "resume", "clocks", "digest", "manifest"),
    # "back" and "undone" undo it, "keep" writes the automatic snapshot.
    "restore": ("suspend", "save", "revert", "resume", "clocks", "verify", "back", "undone", "keep"),
    "remove": ("manifests", "files", "digest"),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    `id` is the snapshot that is being made, empty for none; `target` the one that is being restored.
    `running` are the nodes that ran when it began. `data` is what else is needed to finish it.
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
        """The unfinished attempt; None where there is none.

        Raises:
            LabError: the file is damaged.
        """
        try:
            found = records.parse(self._file.read_text(encoding="utf-8"))
            attempt = records.build(Attempt, found, complete=True)
            if attempt.step not in STEPS[attempt.act]:
                raise ValueError(f"step is {attempt.step!r}, which is not one of {', '.join(STEPS[attempt.act])}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LabError(
                "the journal of an unfinished snapshot or restore is damaged",
                details=[f"{self._file}: {error}"],
                hint=("remove that file; ", Remedy("start"), " resumes paused machines"),
            ) from error
        return attempt

    def begin(self, attempt: Attempt) -> Attempt:
        return self._write(replace(attempt, began=time.time(), process=os.getpid()))

    @contextmanager
    def step(self, attempt: Attempt, step: str, **data: Any) -> Iterator[Attempt]:
        """Write a step to the journal before it is done; how long it takes is kept in `seconds`."""
        noted = self._write(replace(attempt, step=step, data={**attempt.data, **data}))
        began = time.monotonic()
        try:
            yield noted
        finally:
            self.seconds[step] = time.monotonic() - began

    def end(self) -> None:
        """Delete the journal: the attempt has been finished or undone."""
        self._file.unlink(missing_ok=True)

    def _write(self, attempt: Attempt) -> Attempt:
        # Not durable: a sync would wait for the saved RAM ahead of it in the disk's queue, while the lab is paused.
        write_atomic(self._file, json.dumps(asdict(attempt), indent=2) + "\n", durable=False)
        return attempt
