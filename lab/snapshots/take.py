"""Take a snapshot: suspend all, save side by side, resume all; then digests, and the manifest last.

    look -> suspend -> save -> resume -> clocks -> digest -> manifest

Whatever fails or is cut off before the manifest stands takes the whole attempt back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.cluster.clients.api import Api
from lab.cluster.lab import Lab
from lab.cluster.wait.ready import Readiness
from lab.errors import LabError
from lab.snapshots import objects
from lab.snapshots.expiry import CERTIFICATE, TOKEN, first_certificate, last_token
from lab.snapshots.freeze import Moment, describe, refuse_no_room, resume, save, seal, set_clocks, versions
from lab.snapshots.journal import Attempt
from lab.snapshots.manifest import Manifest
from lab.snapshots.names import check_name, made_name
from lab.snapshots.session import Power, Session, opened, undoing, undone
from lab.waiting import Deadline, background, poll

# What a slow guest does not answer at once is no reason to take its lab for broken.
LOOK_SECONDS = 6.0
LOOK_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that is there. `warnings` are about what could not be seen or set, not about the snapshot."""

    manifest: Manifest
    warnings: tuple[str, ...]


def take(lab: Lab, name: str | None = None, note: str = "") -> Taken:
    """Take a snapshot of a lab, running or off.

    Raises:
        UsageError: it cannot be called so.
        Conflict: the name is taken, another klab works on the lab, or the lab is in no state for it.
        HostError: the disk has no room.
        LabError: whatever else goes wrong; the lab runs as before then.
    """
    if name is not None:
        check_name(name)
    with opened(lab) as session:
        return _take(session, name, note)


def _take(session: Session, name: str | None, note: str) -> Taken:
    names = {m.name for m in session.snapshot_store.manifests()}
    if name is not None:
        session.snapshot_store.refuse_taken(name)
    power = session.power()
    refuse_no_room(session, power.running)
    identity, now = session.new_id(), session.lab.clock()
    attempt = session.attempts.begin(Attempt("snapshot", "look", id=identity, running=power.running, nodes=power.nodes))
    tries_again = "it could not be taken back yet ({why}); the next klab command tries again"
    with undoing(lambda: undone(lambda: take_back(session, attempt), otherwise=tries_again)):
        with session.attempts.step(attempt, "look"):
            seen = look(session, power)
        moment = save(session, attempt, identity, power)
        with session.attempts.step(attempt, "resume"):
            moment.resumed = resume(session, power.running)
        with session.attempts.step(attempt, "clocks"):
            unset = set_clocks(session, power.running)
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
    """What was seen of the cluster just before it stood still.

    `missing` is what it lacked to be Ready; `unseen` says what could not be seen.
    """

    objects: dict[objects.Object, str] | None = None
    expires: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()


def look(session: Session, power: Power) -> Seen:
    """Look at what runs: its objects, when its certificates and tokens end. A broken cluster is no reason to stop."""
    if session.plan.bootstrap != "full" or not power.running:
        return Seen()
    unseen: list[str] = []
    found = token = None
    # The nodes tell of their certificates while the API server answers.
    with background(first_certificate, session, power.running) as told:
        try:
            api = Api(session.lab.folder, session.plan)
            found = objects.collect(api)
            token = last_token(api)
        except (LabError, LookupError, TypeError) as error:
            why = error.message if isinstance(error, LabError) else "the API server's answer is none"
            unseen.append(f"the cluster's objects could not be listed, so klab diff will not know them: {why}")
        missing = not_ready(session, power)
        end = told.result()
    if end is None:
        unseen.insert(0, "the nodes did not tell when their certificates end")
    ends = {CERTIFICATE: end, TOKEN: token}
    return Seen(found, {what: when for what, when in ends.items() if when is not None}, missing, tuple(unseen))


def not_ready(session: Session, power: Power) -> tuple[str, ...]:
    """What the lab lacks to be Ready, one line each, as far as the API server tells: a few looks, no wait."""
    if session.plan.bootstrap != "full" or not power.running:
        return ()
    api = Api(session.lab.folder, session.plan)
    readiness = Readiness(session.plan, api, session.machines, nodes=power.running)
    missing: list[str] = []

    def ready() -> bool:
        nonlocal missing
        try:
            missing = readiness.nodes()
            if session.plan.kubernetes.cni != "none":
                missing += readiness.system_pods()
        except LabError as error:
            missing = [error.message]
        return not missing

    poll(ready, Deadline.after(LOOK_SECONDS), every=LOOK_AGAIN_SECONDS)
    return tuple(missing)


def build_manifest(
    session: Session,
    identity: str,
    power: Power,
    moment: Moment,
    name: str,
    *,
    note: str = "",
    auto: bool = False,
    missing: Sequence[str] = (),
) -> Manifest:
    """A manifest without digests."""
    created = min(moment.suspended.values(), default=session.lab.clock())
    return Manifest(
        id=identity,
        name=name,
        lab_id=session.record.id,
        lab=session.record.name,
        scenario=session.plan.scenario,
        created=created,
        guest_time=session.guest_time(created),
        nodes=describe(session, power, moment),
        parent=session.snapshot_store.current,
        note=note,
        auto=auto,
        versions=versions(session),
        seconds=dict(session.attempts.seconds),
        missing=tuple(missing),
    )


def with_digests(session: Session, draft: Manifest) -> Manifest:
    """The manifest with the digests of what was saved."""
    parts = seal(session, draft.id)
    nodes = tuple(replace(node, parts=parts[node.name]) for node in draft.nodes)
    return replace(draft, nodes=nodes)


def take_back(session: Session, attempt: Attempt) -> str:
    """Resume what ran, delete what was saved, and end the attempt. May be done again.

    Returns:
        What became of it, as a clause.

    Raises:
        LabError: a machine does not go on, or something cannot be removed; the attempt stays open.
    """
    session.machines.captures().resume(attempt.running)
    # Before anything is written: the disk may be full.
    session.snapshot_store.remove([attempt.id])
    session.machines.captures().forget([attempt.id])
    set_clocks(session, attempt.running)
    session.attempts.end()
    return "nothing of the snapshot is left, and the lab is as it was before"
