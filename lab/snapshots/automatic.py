"""The automatic snapshot that a restore takes first: drafted while the lab is paused, written when the lab is back.

Only the newest few of them stay.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from lab.errors import LabError
from lab.snapshots.freeze import build_manifest, save, with_digests
from lab.snapshots.journal import Attempt
from lab.snapshots.manifest import Manifest, from_json, to_json
from lab.snapshots.names import AUTO_KEPT, made_name, surplus_autos
from lab.snapshots.remove import remove_locked
from lab.snapshots.session import Power, Session


def draft_auto(session: Session, attempt: Attempt, power: Power, target: Manifest, missing: Sequence[str]) -> Attempt:
    """Save the lab as it is before a restore.

    Args:
        session: the lab's.
        attempt: the restore; its id is the new snapshot's.
        power: which nodes run.
        target: the snapshot that is to be restored.
        missing: what the lab lacks to be Ready.

    Returns:
        The attempt with the draft of the manifest, which `keep_auto` finishes.
    """
    names = {m.name for m in session.snapshot_store.manifests()}
    moment = save(session.captures, session.events, partial(session.attempts.step, attempt), attempt.id, power)
    name = made_name(session.lab.clock(), names, auto=True)
    note = f"before the restore of {target.name}"
    draft = build_manifest(session, attempt.id, power, moment, name, note=note, auto=True, missing=missing)
    return replace(attempt, data={**attempt.data, "draft": to_json(draft)})


def keep_auto(session: Session, attempt: Attempt) -> tuple[Manifest | None, str]:
    """Write the automatic snapshot of a restore; the disks that the restore has replaced are deleted first, for room.

    Returns:
        The snapshot, or None; and why it could not be kept, empty otherwise.

    Raises:
        LabError, OSError: it cannot be finished; the same call continues.
    """
    session.captures.delete([], merge=False)
    with session.attempts.step(attempt, "keep"):
        if not attempt.id:
            return None, ""
        try:
            manifest = with_digests(
                session, replace(from_json(attempt.data["draft"]), expires=_inherited(session, attempt))
            )
            session.snapshot_store.write(manifest)
        except (LabError, OSError) as error:
            # After a kill while it was being given up, its files are gone already.
            if not _is_full(error) and attempt.id in set(session.captures.keys()):
                raise
        else:
            return manifest, ""
        # An unfinished one would keep the disk full, and every command that could make room waits for it.
        session.snapshot_store.remove([attempt.id])
        session.captures.delete([attempt.id])
        return None, "the lab as it was before could not be kept: the disk is full"


def _is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        error = error.__cause__
    return False


def _inherited(session: Session, attempt: Attempt) -> dict[str, float]:
    """When certificates expire, for a lab that was not asked: as noted with the snapshot that was its current one."""
    return next((dict(m.expires) for m in session.snapshot_store.manifests() if m.id == attempt.data["stand"]), {})


def prune_autos(session: Session, newest: Manifest | None) -> None:
    """Remove the automatic snapshots that are too many.

    Args:
        session: the lab's.
        newest: the one just made, which is kept whatever its date is; None if there is none.
    """
    older = [m for m in session.snapshot_store.manifests() if newest is None or m.id != newest.id]
    kept = AUTO_KEPT - (newest is not None)
    if gone := surplus_autos(older, kept, spared={session.snapshot_store.current}):
        remove_locked(session, gone)
