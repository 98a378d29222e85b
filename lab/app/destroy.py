"""Remove a lab."""

from __future__ import annotations

from lab.app.interruption import interruptible
from lab.app.labs import reach
from lab.cluster.acts import destroy as act
from lab.cluster.lab import Lab
from lab.errors import Remedy
from lab.snapshots.store import SnapshotStore


def destroy(lab: Lab) -> None:
    """Remove a lab: its machines, disks, networks, snapshots and files. It need not have been entered.

    Raises:
        Conflict: another klab works on it.
        MachineError: something of it is still there; a second try finds it.
        Interrupted: on Ctrl-C.
    """
    # Whatever a killed klab left unfinished goes with the rest.
    reach(lab)
    with interruptible("stopped half-way", (Remedy("destroy", lab=lab.name, options=("-y",)), " continues")):
        act.destroy(lab, lambda _line: None)


def count_snapshots(lab: Lab) -> int:
    """How many snapshots go with the lab."""
    return len(SnapshotStore(lab.folder).manifests())
