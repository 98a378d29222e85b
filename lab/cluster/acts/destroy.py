"""Destroy a lab: nothing of it stays behind, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable

from lab.cluster.lab import Lab


def destroy(lab: Lab, on_line: Callable[[str], None]) -> None:
    """Remove every machine, volume, network and file of a lab. Safe to repeat after a kill.

    Raises:
        Conflict: another klab works on it.
        MachineError: something of it is still there; the lab's folder is kept, so that a second try finds it.
    """
    with lab.folder.lock():
        lab.machines(lab.folder.update_record(phase="destroying")).destroy(on_line)
        lab.folder.remove()
