"""Remove, rename and prune snapshots; the files that only they needed go, and disk layers become one.

    manifests -> files -> digest

Before a layer takes up another its content is checked: what had been damaged shall not look
whole afterwards. After a kill a removal is finished, not taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab.cluster.lab import Lab
from lab.errors import LabError
from lab.machines.captures import Part
from lab.snapshots.check import matched
from lab.snapshots.digest import digests
from lab.snapshots.freeze import records
from lab.snapshots.journal import Attempt
from lab.snapshots.manifest import Manifest
from lab.snapshots.names import check_name, surplus
from lab.snapshots.session import Session, opened


def remove(lab: Lab, names: Sequence[str]) -> list[str]:
    """Remove snapshots, by name or id; those with damaged manifests by id.

    Returns:
        The names of those that went; the id of one whose manifest is damaged.

    Raises:
        NotFound: there is no such snapshot.
        Conflict: another klab works on the lab.
        MachineError: something of them cannot be removed; the same command again goes on.
    """
    with opened(lab) as session:
        ids = session.snapshot_store.ids(names)
        known = {m.id: m.name for m in session.snapshot_store.manifests()}
        remove_locked(session, ids)
        return [known.get(identity, identity) for identity in ids]


def prune(lab: Lab, keep: int) -> list[str]:
    """Remove all but the newest `keep` of the snapshots that were taken by hand, and all automatic ones.

    Returns:
        The names of those that went.

    Raises:
        Conflict, MachineError: as `remove`.
    """
    with opened(lab) as session:
        manifests = session.snapshot_store.manifests()
        gone = surplus([m for m in manifests if not m.auto], keep) + [m.id for m in manifests if m.auto]
        remove_locked(session, gone)
        return [m.name for m in manifests if m.id in gone]


def rename(lab: Lab, old: str, new: str) -> Manifest:
    """Give a snapshot another name. One that was automatic is one of a person's then.

    Raises:
        UsageError, NotFound, Conflict: it cannot be called so, there is none, or the name is taken.
    """
    check_name(new)
    with opened(lab) as session:
        manifest = session.snapshot_store.pick(old)
        if new != manifest.name:
            session.snapshot_store.refuse_taken(new)
        renamed = replace(manifest, name=new, auto=False)
        session.snapshot_store.write(renamed)
        return renamed


def remove_locked(session: Session, ids: Sequence[str]) -> None:
    """Remove snapshots of a lab whose lock is held."""
    if not ids:
        return
    known = _known(session)
    data = {"ids": list(ids), "known": known, **_merging(session, ids, known)}
    attempt = session.attempts.begin(Attempt("remove", "manifests", data=data))
    finish_removal(session, attempt)


def finish_removal(session: Session, attempt: Attempt) -> None:
    """Do what the journal says is to be removed, wherever it was cut off."""
    ids: list[str] = attempt.data["ids"]
    with session.attempts.step(attempt, "manifests") as attempt:
        _reparent(session, ids)
        session.snapshot_store.remove(ids)
    with session.attempts.step(attempt, "files") as attempt:
        session.machines.captures().forget(ids, merge=bool(attempt.data["merge"]))
    with session.attempts.step(attempt, "digest"):
        _renew_digests(session, attempt.data["known"], set(attempt.data["rewritten"]))
    session.attempts.end()


def _known(session: Session) -> dict[str, str]:
    """By name the digest of every file that a manifest counts."""
    found: dict[str, str] = {}
    for manifest in session.snapshot_store.manifests():
        try:
            found |= matched(manifest, session.machines.captures().parts(manifest.id))
        except LabError:
            continue  # damaged; nothing of it is taken for whole
    return found


def _merging(session: Session, ids: Sequence[str], known: Mapping[str, str]) -> dict[str, object]:
    """Whether layers may become one, and which of those that stay are written anew."""
    rewrites = session.machines.captures().rewrites(ids)
    sources = {name for rewrite in rewrites for name in rewrite.sources}
    parts = [
        part
        for manifest in session.snapshot_store.manifests()
        for part in _parts(session, manifest)
        if part.name in sources and part.name in known
    ]
    found = digests(session.machines, parts)
    whole = all(known[name] == digest for name, digest in found.items())
    return {"merge": whole, "rewritten": [rewrite.name for rewrite in rewrites] if whole else []}


def _parts(session: Session, manifest: Manifest) -> list[Part]:
    try:
        return session.machines.captures().parts(manifest.id)
    except LabError:
        return []


def _reparent(session: Session, gone: Sequence[str]) -> None:
    """Let what lies on a snapshot that goes lie on the one below it."""
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
    """Bring the manifests up to the files as they are now: some layers have become one."""
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
