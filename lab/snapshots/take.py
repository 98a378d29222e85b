"""Take a snapshot: suspend all, save side by side, resume all; then digests, and the manifest last.

    look -> suspend -> save -> resume -> clocks -> digest -> manifest

An attempt that fails, or is killed, before the manifest is written is undone completely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from lab.errors import LabError
from lab.snapshots import objects
from lab.snapshots.expiry import CERTIFICATE, TOKEN, first_certificate, last_token
from lab.snapshots.freeze import build_manifest, not_ready, refuse_no_room, resume, save, set_clocks, with_digests
from lab.snapshots.journal import Attempt
from lab.snapshots.manifest import Manifest
from lab.snapshots.names import made_name
from lab.snapshots.session import Power, Session, undoing, undone
from lab.waiting import background


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that was taken. `warnings` say what could not be seen or set; the snapshot itself is whole."""

    manifest: Manifest
    warnings: tuple[str, ...]


def take_locked(session: Session, name: str | None, note: str) -> Taken:
    """Take a snapshot of a lab whose lock is held; errors as `lab.snapshots.commands.take`."""
    names = {m.name for m in session.snapshot_store.manifests()}
    if name is not None:
        session.snapshot_store.refuse_taken(name)
    power = session.power()
    refuse_no_room(session.captures, power.running, session.lab.folder.name)
    identity, now = session.new_id(), session.lab.clock()
    attempt = session.attempts.begin(Attempt("snapshot", "look", id=identity, running=power.running, nodes=power.nodes))
    tries_again = "it could not be undone yet ({why}); the next klab command tries again"
    with undoing(lambda: undone(lambda: take_back(session, attempt), otherwise=tries_again)):
        with session.attempts.step(attempt, "look"):
            seen = look(session, power)
        moment = save(session.captures, session.events, partial(session.attempts.step, attempt), identity, power)
        with session.attempts.step(attempt, "resume"):
            moment.resumed = resume(session.captures, session.events, power.running)
        with session.attempts.step(attempt, "clocks"):
            unset = set_clocks(session.machines, session.events, session.guest_now, power.running)
        with session.attempts.step(attempt, "digest"):
            draft = build_manifest(session, identity, power, moment, name or made_name(now, names), note=note)
            draft = with_digests(session, draft)
        with session.attempts.step(attempt, "manifest"):
            seconds = dict(session.attempts.seconds)
            manifest = replace(draft, expires=seen.expires, missing=seen.missing, seconds=seconds)
            if seen.objects is not None:
                objects.write(session.snapshot_store.objects(identity), seen.objects)
            session.snapshot_store.write(manifest)
            session.snapshot_store.set_current(identity)
    session.attempts.end()
    warnings = [*seen.unseen, *(f"the clock of {node} could not be set: {why}" for node, why in unset.items())]
    return Taken(manifest, tuple(warnings))


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of the cluster just before it was paused.

    `missing` is what it lacked to be Ready; `unseen` is what could not be seen.
    """

    objects: dict[objects.Object, str] | None = None
    expires: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def look(session: Session, power: Power) -> Seen:
    """Look at what runs: its objects, when its certificates and tokens expire. A broken cluster is no error."""
    if session.plan.bootstrap != "full" or not power.running:
        return Seen()
    unseen: list[str] = []
    found = token = None
    # The nodes tell of their certificates while the API server answers.
    with background(first_certificate, session.machines, power.running) as told:
        try:
            api = session.lab.api()
            found = objects.collect(api)
            token = last_token(api)
        except (LabError, LookupError, TypeError) as error:
            why = error.message if isinstance(error, LabError) else "the API server returned an unexpected response"
            unseen.append(f"the cluster's objects could not be listed, so klab diff will not know them: {why}")
        missing = not_ready(session.lab.api(), session.plan, session.machines, power.running)
        end = told.result()
    if end is None:
        unseen.insert(0, "no node said when its certificates expire")
    ends = {CERTIFICATE: end, TOKEN: token}
    return Seen(found, {what: when for what, when in ends.items() if when is not None}, missing, tuple(unseen))


def take_back(session: Session, attempt: Attempt) -> str:
    """Resume what ran, delete what was saved, and end the attempt. May be repeated.

    Returns:
        The outcome, as a clause.

    Raises:
        LabError: a machine cannot be resumed, or a file cannot be removed; the attempt stays open.
    """
    session.captures.resume(attempt.running)
    # Before anything is written: the disk may be full.
    session.snapshot_store.remove([attempt.id])
    session.captures.delete([attempt.id])
    set_clocks(session.machines, session.events, session.guest_now, attempt.running)
    session.attempts.end()
    return "nothing of the snapshot is left, and the lab is as it was before"
