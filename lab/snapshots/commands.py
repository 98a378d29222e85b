"""What can be done with a lab's snapshots: each verb locks the lab, finishes what a killed klab has left, and acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from lab.cluster.lab import Lab
from lab.snapshots.integrity import Verified, verify_locked
from lab.snapshots.manifest import Manifest
from lab.snapshots.names import check_name, surplus
from lab.snapshots.recover import finish
from lab.snapshots.remove import remove_locked
from lab.snapshots.restore import Restored, restore_locked
from lab.snapshots.session import Session, open_session
from lab.snapshots.take import Taken, take_locked


@contextmanager
def opened(lab: Lab) -> Iterator[Session]:
    """Lock a lab, and finish or undo what a killed klab has left unfinished.

    Raises:
        Conflict: another klab works on it, or it is half made or half destroyed.
    """
    with lab.folder.lock():
        session = open_session(lab, lab.finished())
        finish(session)
        yield session


def take(lab: Lab, name: str | None = None, note: str = "") -> Taken:
    """Take a snapshot of a lab, running or off.

    Raises:
        UsageError: `name` is not a valid snapshot name.
        Conflict: the name is taken, another klab works on the lab, or a machine neither runs nor is off.
        HostError: the disk has no room.
        LabError: any other failure; the lab runs as before then.
    """
    if name is not None:
        check_name(name)
    with opened(lab) as session:
        return take_locked(session, name, note)


def restore(lab: Lab, name: str | None = None, *, node: str | None = None, keep: bool = True) -> Restored:
    """Restore a lab from a snapshot, and verify that it works.

    Args:
        lab: the lab.
        name: the snapshot's name or id; the last that was taken by hand when left out.
        node: the one worker to restore; all nodes when left out.
        keep: take an automatic snapshot before.

    Raises:
        UsageError: a control plane cannot be restored alone.
        NotFound: there is no such snapshot.
        Conflict: the snapshot does not fit the lab, or is damaged; the lab has not been touched then.
        HostError: there is no room for the automatic snapshot.
        LabError: any other failure; the lab has been reverted to the automatic snapshot then.
    """
    with opened(lab) as session:
        return restore_locked(session, name, node, keep=keep)


def remove(lab: Lab, names: Sequence[str]) -> list[str]:
    """Remove snapshots, by name or id; those with damaged manifests by id.

    Returns:
        The names of the removed snapshots; the id of one whose manifest is damaged.

    Raises:
        NotFound: there is no such snapshot.
        Conflict: another klab works on the lab.
        MachineError: a file cannot be removed; the same command continues.
    """
    with opened(lab) as session:
        ids = session.snapshot_store.ids(names)
        known = {m.id: m.name for m in session.snapshot_store.manifests()}
        remove_locked(session, ids)
        return [known.get(identity, identity) for identity in ids]


def prune(lab: Lab, keep: int) -> list[str]:
    """Remove all but the newest `keep` of the snapshots that were taken by hand, and all automatic ones.

    Returns:
        The names of the removed snapshots.

    Raises:
        Conflict, MachineError: as `remove`.
    """
    with opened(lab) as session:
        manifests = session.snapshot_store.manifests()
        gone = surplus([m for m in manifests if not m.auto], keep) + [m.id for m in manifests if m.auto]
        remove_locked(session, gone)
        return [m.name for m in manifests if m.id in gone]


def verify(lab: Lab, names: Sequence[str] = ()) -> Verified:
    """Read all files of snapshots again and compare them with their manifests; of all snapshots where none is named.

    Raises:
        NotFound: there is no such snapshot.
        Conflict: another klab works on the lab.
        HostError: the provider does not answer.
    """
    with opened(lab) as session:
        manifests, damaged = session.snapshot_store.all()
        every = [*(m.id for m in manifests), *(each.id for each in damaged)]
        return verify_locked(session, session.snapshot_store.ids(names) if names else every)


def rename(lab: Lab, old: str, new: str) -> Manifest:
    """Give a snapshot another name. An automatic snapshot counts as taken by hand then.

    Raises:
        UsageError: `new` is not a valid snapshot name.
        NotFound: there is no snapshot called `old`.
        Conflict: the name is taken, or another klab works on the lab.
    """
    check_name(new)
    with opened(lab) as session:
        manifest = session.snapshot_store.pick(old)
        if new != manifest.name:
            session.snapshot_store.refuse_taken(new)
        renamed = replace(manifest, name=new, auto=False)
        session.snapshot_store.write(renamed)
        return renamed
