"""Destroy a lab: nothing of it stays behind, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable

from lab.cluster.create import OpenMachines
from lab.plan import Plan
from lab.store import Home, LabFolder


def destroy(
    home: Home, folder: LabFolder, plan: Plan, open_machines: OpenMachines, on_line: Callable[[str], None]
) -> None:
    """Remove every machine, volume, network and file of a lab. Safe to repeat after a kill.

    Raises:
        Conflict: another klab works on it.
        MachineError: something of it is still there; the lab's folder is kept, so that a second try finds it.
    """
    with folder.lock():
        record = folder.update_record(phase="destroying")
        machines = open_machines(home, folder, plan, record, None)
        machines.destroy(on_line)
        folder.remove()
