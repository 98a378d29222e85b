"""Which Kubernetes objects differ between two snapshots, or a snapshot and now."""

from __future__ import annotations

from collections.abc import Mapping

from lab.cluster.clients.api import Api
from lab.cluster.lab import Lab
from lab.errors import Conflict, UsageError
from lab.snapshots import objects
from lab.snapshots.objects import Difference, Object, difference
from lab.snapshots.store import SnapshotStore

NOW = "now"


def compare(lab: Lab, first: str, second: str | None = None) -> Difference:
    """Set the objects of two snapshots against each other; of a snapshot and the lab as it is now without `second`.

    Raises:
        NotFound: there is no such snapshot.
        UsageError: the lab has no cluster of klab's making.
        Conflict: a snapshot knows of no objects.
        UnreachableError: the API server does not answer.
        LabError: what was kept is damaged.
    """
    if lab.plan.bootstrap != "full":
        raise UsageError(
            f"lab {lab.folder.name!r} has no cluster of klab's making", hint="klab does not know its objects"
        )
    snapshot_store = SnapshotStore(lab.folder)
    before = _objects(snapshot_store, first)
    after = objects.collect(Api(lab.folder, lab.plan)) if second is None else _objects(snapshot_store, second)
    return difference(before, after)


def _objects(snapshot_store: SnapshotStore, name: str) -> Mapping[Object, str]:
    manifest = snapshot_store.pick(name)
    found = objects.read(snapshot_store.objects(manifest.id))
    if found is None:
        raise Conflict(
            f"nothing is known of the objects in snapshot {manifest.name!r}",
            details=["they are listed by asking the API server, just before the nodes stand still"],
            hint="an automatic snapshot, one of a lab that is off, and one of a broken cluster have no list",
        )
    return found
