"""Take, restore, list, compare, verify, rename and remove the snapshots of a lab.

Each function takes a lab that `lab.app.labs` has entered. Each raises what the act of `lab.snapshots` raises, and
`Interrupted` on Ctrl-C.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lab.app.interruption import interruptible
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.errors import LabError, Remedy
from lab.snapshots import commands, compare
from lab.snapshots.compare import NOW as NOW
from lab.snapshots.integrity import Verified
from lab.snapshots.manifest import Manifest
from lab.snapshots.objects import Difference
from lab.snapshots.restore import Restored
from lab.snapshots.store import Damaged, SnapshotStore
from lab.snapshots.take import Taken


@dataclass(frozen=True, slots=True)
class Listing:
    """The snapshots of a lab, those with a damaged manifest, and the id of the one that the lab is based on.

    `unmerged` is what takes space that could not be saved yet, with when it can, one line each.
    """

    manifests: list[Manifest]
    damaged: list[Damaged]
    current: str
    unmerged: list[str] = field(default_factory=list)

    @property
    def name(self) -> str | None:
        """The name of the snapshot that the lab is based on; None where there is none."""
        return next((m.name for m in self.manifests if m.id == self.current), None)


def take(lab: Lab, name: str | None = None, *, note: str = "", listener: Listener | None = None) -> Taken:
    """Take a snapshot.

    Args:
        lab: the lab, running or off.
        name: the snapshot's name; the time when left out.
        note: a line for the list.
        listener: told each event.
    """
    with interruptible("stopped; the lab runs as before", (Remedy("snapshot"), " again takes one")):
        # A note is one line of the list, whatever was pasted.
        return commands.take(lab.watched_by(listener), name, " ".join(note.split()))


def restore(
    lab: Lab,
    name: str | None = None,
    *,
    node: str | None = None,
    keep: bool = True,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> Restored:
    """Restore a lab from a snapshot, and wait until it is verified to be there; `leases` may follow.

    Args:
        lab: the lab.
        name: the snapshot; the last that was taken by hand when left out.
        node: the one worker to restore; all nodes when left out.
        keep: take an automatic snapshot before.
        timeout: how long it may take until the lab is Ready, in seconds.
        listener: told each event.
    """
    with interruptible("stopped; the lab has not been touched", (Remedy("restore"), " again restores it")):
        return commands.restore(lab.watched_by(listener, timeout), name, node=node, keep=keep)


def leases(done: Restored) -> list[str]:
    """Wait until every node has renewed its lease since a restore; adds how long that took to `done.seconds`.

    Returns:
        The nodes that have not, each with the reason.
    """
    began = time.monotonic()
    with interruptible(
        "the lab is restored, but klab has not seen every node renew its lease",
        (Remedy("status"), " shows the lab's nodes"),
    ):
        late = done.verification.leases()
    done.seconds["leases"] = time.monotonic() - began
    return late


def remove(lab: Lab, names: Sequence[str]) -> list[str]:
    """Remove snapshots; returns their names."""
    with _half_way():
        return commands.remove(lab, names)


def prune(lab: Lab, keep: int) -> list[str]:
    """Remove all automatic snapshots, and all but the newest `keep` of the others; returns their names."""
    with _half_way():
        return commands.prune(lab, keep)


def verify(lab: Lab, names: Sequence[str] = (), *, listener: Listener | None = None) -> Verified:
    """Read all files of these snapshots, or of all, and compare them with the digests that their manifests have.

    Args:
        lab: the lab, running or off.
        names: the snapshots' names or ids; all of them where there are none.
        listener: told each event, and how far it is.
    """
    with interruptible("stopped; nothing was changed", (Remedy("snapshot verify"), " begins again")):
        return commands.verify(lab.watched_by(listener), names)


def rename(lab: Lab, old: str, new: str) -> Manifest:
    """Give a snapshot another name; an automatic one stays for good then."""
    return commands.rename(lab, old, new)


def listing(lab: Lab) -> Listing:
    """All snapshots of a lab."""
    store = SnapshotStore(lab.folder)
    manifests, damaged = store.all()
    return Listing(manifests, damaged, store.current, _unmerged(lab))


def _unmerged(lab: Lab) -> list[str]:
    try:
        return lab.machines(lab.record).captures().unmerged()
    except LabError:
        return []  # where the machines cannot be asked, the list is what matters


def diff(lab: Lab, first: str, second: str | None = None) -> Difference:
    """The Kubernetes objects that differ between two snapshots, or between a snapshot and now."""
    return compare.compare(lab, first, second)


def _half_way() -> AbstractContextManager[None]:
    return interruptible("stopped half-way", "the next klab command finishes the removal")
