"""Remove snapshots: the files that only they needed go, and disk layers become one.

    manifests -> files -> digest

The content of a layer is checked before it is merged into another: damaged data must not look
whole afterwards. After a kill a removal is finished, not undone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab.errors import LabError, MachineError
from lab.machines.captures import Part
from lab.snapshots.check import matched
from lab.snapshots.digest import digests
from lab.snapshots.freeze import records
from lab.snapshots.journal import Attempt
from lab.snapshots.manifest import Manifest
from lab.snapshots.session import Session


def remove_locked(session: Session, ids: Sequence[str]) -> None:
    """Remove snapshots of a lab whose lock is held, and save the space that can be; `ids` may be empty."""
    known = _known(session)
    data = {"ids": list(ids), "known": known, **_merging(session, ids, known)}
    attempt = session.attempts.begin(Attempt("remove", "manifests", data=data))
    finish_removal(session, attempt)


def finish_removal(session: Session, attempt: Attempt) -> None:
    """Remove what the journal names, from whatever step the removal had reached."""
    ids: list[str] = attempt.data["ids"]
    with session.attempts.step(attempt, "manifests") as attempt:
        _reparent(session, ids)
        session.snapshot_store.remove(ids)
    with session.attempts.step(attempt, "files") as attempt:
        session.captures.delete(ids, merge=bool(attempt.data["merge"]))
    with session.attempts.step(attempt, "digest"):
        _renew_digests(session, attempt.data["known"], set(attempt.data["rewritten"]))
    session.attempts.end()


def _known(session: Session) -> dict[str, str]:
    """By name the digest of every file that a manifest counts."""
    found: dict[str, str] = {}
    for manifest in session.snapshot_store.manifests():
        try:
            found |= matched(manifest, session.captures.parts(manifest.id))
        except LabError:
            continue  # damaged: none of its files count as whole
    return found


def _merging(session: Session, ids: Sequence[str], known: Mapping[str, str]) -> dict[str, object]:
    """Whether layers may become one, and which of those that stay are rewritten."""
    rewrites = session.captures.rewrites(ids)
    sources = {name for rewrite in rewrites for name in rewrite.sources}
    parts = [
        part
        for manifest in session.snapshot_store.manifests()
        for part in _parts(session, manifest)
        if part.name in sources and part.name in known
    ]
    try:
        whole = all(known[name] == digest for name, digest in digests(session.machines, parts).items())
    except MachineError:  # what cannot be read cannot be merged, and is to be removed all the same
        whole = False
    return {"merge": whole, "rewritten": [rewrite.name for rewrite in rewrites] if whole else []}


def _parts(session: Session, manifest: Manifest) -> list[Part]:
    try:
        return session.captures.parts(manifest.id)
    except LabError:
        return []


def _reparent(session: Session, gone: Sequence[str]) -> None:
    """Set the parent of each snapshot that lies on a removed one to the next one below that stays."""
    manifests = {m.id: m for m in session.snapshot_store.manifests()}

    def left(identity: str) -> str:
        seen = set()
        while identity in gone and identity not in seen:
            seen.add(identity)
            below = manifests.get(identity)
            identity = below.parent if below else ""
        return "" if identity in gone else identity

    for manifest in manifests.values():
        if manifest.id not in gone and manifest.parent in gone:
            session.snapshot_store.write(replace(manifest, parent=left(manifest.parent)))
    if session.snapshot_store.current in gone:
        session.snapshot_store.set_current(left(session.snapshot_store.current))


def _renew_digests(session: Session, known: Mapping[str, str], rewritten: set[str]) -> None:
    """Update the manifests to the files as they are now: some layers have been merged."""
    for manifest in session.snapshot_store.manifests():
        parts = _parts(session, manifest)
        if not parts:
            continue
        fresh = [part for part in parts if part.name in rewritten]
        if not fresh and all(part.name in known for part in parts) and len(parts) == _count(manifest):
            continue
        found = {**known, **digests(session.machines, fresh)}
        if all(part.name in found for part in parts):
            by_node = records(parts, found)
            nodes = tuple(replace(node, parts=by_node.get(node.name, ())) for node in manifest.nodes)
            session.snapshot_store.write(replace(manifest, nodes=nodes))


def _count(manifest: Manifest) -> int:
    return sum(len(node.parts) for node in manifest.nodes)
