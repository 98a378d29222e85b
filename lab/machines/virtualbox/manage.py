"""VBoxManage, run through klab's door to programs."""

from __future__ import annotations

from lab import process
from lab.process import Completed

QUICK_SECONDS = 60.0


def manage(*words: str, check: bool = True, timeout: float = QUICK_SECONDS) -> Completed:
    """Run VBoxManage with these words; errors as `lab.process.run`."""
    return process.run(["VBoxManage", *words], timeout=timeout, check=check)
