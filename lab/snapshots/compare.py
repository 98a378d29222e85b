"""Which Kubernetes objects differ between two snapshots, or a snapshot and now."""

from __future__ import annotations

from collections.abc import Mapping

from lab.cluster.lab import Lab
from lab.errors import Conflict, UsageError
from lab.snapshots import objects
from lab.snapshots.objects import Difference, Object, difference
from lab.snapshots.store import SnapshotStore

NOW = "now"


def compare(lab: Lab, first: str, second: str | None = None) -> Difference:
    """Compare the objects of two snapshots; without `second`, of a snapshot and the lab as it is now.

    Raises:
        NotFound: there is no such snapshot.
        UsageError: klab did not create the lab's cluster.
        Conflict: a snapshot has no list of objects.
        UnreachableError: the API server does not answer.
        LabError: what was kept is damaged.
    """
    if lab.plan.bootstrap != "full":
        raise UsageError(
            f"lab {lab.folder.name!r} has no cluster that klab created", hint="klab does not know its objects"
        )
    snapshot_store = SnapshotStore(lab.folder)
    before = _objects(snapshot_store, first)
    after = objects.collect(lab.api()) if second is None else _objects(snapshot_store, second)
    return difference(before, after)


def _objects(snapshot_store: SnapshotStore, name: str) -> Mapping[Object, str]:
    manifest = snapshot_store.pick(name)
    found = objects.read(snapshot_store.objects(manifest.id))
    if found is None:
        raise Conflict(
            f"snapshot {manifest.name!r} has no list of Kubernetes objects",
            details=["they are listed by asking the API server, just before the nodes are paused"],
            hint="an automatic snapshot, one of a lab that is off, and one of a broken cluster have no list",
        )
    return found
