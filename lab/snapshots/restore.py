"""Bring a lab back to a snapshot.

    check -> suspend -> save (the automatic snapshot) -> revert -> resume -> clocks -> verify -> keep

Nothing is touched before the whole snapshot has been checked. What fails afterwards goes back to
the automatic snapshot; after a kill it is finished: forward once machines have been switched.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lab.cluster.acts import certificates
from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.lab import Lab
from lab.cluster.tokens import fresh_token
from lab.errors import Conflict, LabError, UsageError
from lab.machines.protocol import NodeState
from lab.snapshots.check import lab_problems
from lab.snapshots.digest import file_problems
from lab.snapshots.expiry import CERTIFICATE, TOKEN, expired, first_certificate
from lab.snapshots.freeze import refuse_no_room, resume, save, set_clocks
from lab.snapshots.journal import Attempt
from lab.snapshots.manifest import Manifest, from_json, to_json
from lab.snapshots.names import AUTO_KEPT, made_name, surplus_autos
from lab.snapshots.remove import remove_locked
from lab.snapshots.session import Power, Session, opened, undoing, undone, uninterrupted
from lab.snapshots.take import build_manifest, not_ready, with_digests
from lab.snapshots.verify import Verification
from lab.waiting import Deadline, background, poll

TOKEN_SECONDS = 120.0
GOES_ON = "the way back is not finished ({why}); the next klab command goes on with it"


@dataclass(frozen=True, slots=True)
class Restored:
    """A lab that is back. `auto` is the snapshot that was made of it before.

    `nodes` were put back, `running` run now. `seconds` says how long each part took, by name;
    `asked` after how many seconds of verifying each requirement held, `ready` after how many of
    the restore all did. `warnings` are about what was not as it should be. `verification` can
    watch the leases, which needs no lock.
    """

    manifest: Manifest
    auto: Manifest | None
    nodes: tuple[str, ...]
    running: tuple[str, ...]
    seconds: dict[str, float]
    asked: dict[str, float]
    ready: float
    warnings: tuple[str, ...]
    verification: Verification


def restore(lab: Lab, name: str | None = None, *, node: str | None = None, keep: bool = True) -> Restored:
    """Bring a lab back to a snapshot, and wait until it is verified to be there.

    Args:
        lab: the lab.
        name: the snapshot's name or id; the last that was taken by hand when left out.
        node: the one worker to bring back; all nodes when left out.
        keep: take an automatic snapshot before.

    Raises:
        UsageError: a control plane cannot be brought back alone.
        NotFound: there is no such snapshot.
        Conflict: the snapshot does not fit the lab, or is damaged; the lab has not been touched then.
        HostError: there is no room for the automatic snapshot.
        LabError: whatever else goes wrong; the lab is back at the automatic snapshot then.
    """
    with opened(lab) as session:
        return _Restore(session, name, node, keep=keep).run()


class _Restore:
    """One restore of one lab."""

    def __init__(self, session: Session, name: str | None, node: str | None, *, keep: bool) -> None:
        self.session = session
        self.manifest = session.snapshot_store.pick(name)
        self.nodes = (node,) if node else tuple(n.name for n in session.plan.nodes)
        if node:
            self._refuse_alone(node)
        self.keep = keep
        self.alone = bool(node)
        self.power = self._power()
        self.began = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self.missing: tuple[str, ...] = ()
        self.asked: dict[str, float] = {}
        host = session.lab.clock()
        self.verification = self._verification()
        self.expired = expired(self.manifest.expires, guests=session.guest_time(host), host=host)

    def _not_ready(self) -> tuple[str, ...]:
        return not_ready(self.session, self.power) if self.keep else ()

    def run(self) -> Restored:
        session, events = self.session, self.session.events
        # Files are read meanwhile: it costs no time.
        with self._timed("check"), background(self._not_ready) as missing:
            self._check()
            self.missing = missing.result()
        self._announce()
        if self.keep:
            refuse_no_room(session, self.power.running)
        identity = session.new_id() if self.keep else ""
        attempt = session.attempts.begin(
            Attempt(
                "restore",
                "suspend",
                id=identity,
                target=self.manifest.id,
                running=self.power.running,
                nodes=self.nodes,
                data={"stand": session.snapshot_store.current, "resume": list(self._to_run())},
            )
        )

        switched: list[str] = []

        def back(node: str) -> None:
            switched.append(node)
            events.add(node, "revert", "done")

        with undoing(lambda: undone(lambda: self._back(switched), otherwise=GOES_ON)):
            with self._timed("automatic snapshot"):
                attempt = self._save(attempt, identity)
            events.add("", "revert", "begin")
            with self._timed("revert"), session.attempts.step(attempt, "revert"):
                session.machines.captures().revert(self.manifest.id, self.nodes, back)
            self._go_on(attempt)
            with session.attempts.step(attempt, "verify"):
                self._verify()
        ready = time.monotonic() - self.began
        self._tell_back(ready)
        # The lab is back: whoever presses Ctrl-C now would only leave this to the next command.
        with uninterrupted(), self._timed("digests of the automatic snapshot"):
            auto = self._tidy(attempt)
        return Restored(
            self.manifest,
            auto,
            self.nodes,
            self._to_run(),
            self.seconds,
            self.asked,
            ready,
            tuple(self.warnings),
            self.verification,
        )

    def _tell_back(self, seconds: float) -> None:
        """Say that the lab can be used: what is still to be done for the automatic snapshot takes longer than that."""
        if self.keep and self._to_run():
            state = "Ready" if self.verification.full else "up"
            text = f"{state} again after {seconds:.0f} s, and free to be used; how it was before is still being written"
            self.session.events.add("", "back", "note", text)

    def _back(self, switched: Sequence[str]) -> str:
        """Bring the lab back to how it was; returns what became of it, as a clause."""
        attempt = self.session.attempts.read()
        if attempt is None:
            return "the lab is as it was before"
        if attempt.step == "revert" and not switched and self._untouched():
            # Only its preparation has failed, as on a full disk, where no other way back might be open.
            attempt = replace(attempt, step="save")
        return go_back(self.session, attempt)

    def _untouched(self) -> bool:
        """Whether each machine that was to be put back is there still; of one that was off nobody could tell."""
        states = self.session.machines.states()
        return set(self.nodes) <= set(self.power.running) and all(states[name].on for name in self.nodes)

    def _tidy(self, attempt: Attempt) -> Manifest | None:
        """Let the automatic snapshot exist, and remove those that are too many. The lab is back, whatever fails here.

        Returns:
            The automatic snapshot; None where there is none, or not yet.
        """
        auto, what = (
            None,
            "the automatic snapshot is not finished" if attempt.id else "what is left over is not removed",
        )
        try:
            auto, lost = keep_auto(self.session, attempt)
            what = "what is left over is not removed"
            self.warnings += [lost] if lost else []
            self.session.attempts.end()
            self._prune(auto)
        except (LabError, OSError) as error:
            why = "; ".join((error.message, *error.details)) if isinstance(error, LabError) else str(error)
            self.warnings.append(f"{what} yet ({why}); the next klab command goes on with it")
        return auto

    def _prune(self, auto: Manifest | None) -> None:
        """Remove the automatic snapshots that are too many; never the one just made, whatever its date says."""
        older = [m for m in self.session.snapshot_store.manifests() if auto is None or m.id != auto.id]
        kept = AUTO_KEPT - (auto is not None)
        remove_locked(self.session, surplus_autos(older, kept, spared={self.session.snapshot_store.current}))

    # --- before anything is touched -----------------------------------------------------------------

    def _refuse_alone(self, name: str) -> None:
        node = self.session.plan.node(name)
        if node is not None and node.is_control_plane:
            raise UsageError(
                f"{name} cannot be brought back alone: it is a control plane",
                details=["its etcd member would not know what the cluster has agreed on since"],
                hint=f"klab restore {self.manifest.name} brings back the whole lab; "
                f"klab node replace {name} makes it anew",
            )

    def _power(self) -> Power:
        """What runs and what is off. A broken machine is no reason not to restore, unless it is to be kept."""
        states = self.session.machines.states()
        absent = [name for name, state in states.items() if state == NodeState.ABSENT]
        if absent and self.keep:
            raise Conflict(
                f"there is no machine of {', '.join(absent)}, so the lab cannot be kept as it is",
                hint="klab restore --no-save does without the automatic snapshot",
            )
        return Power(
            tuple(name for name, state in states.items() if state.on),
            tuple(name for name, state in states.items() if not state.on and state != NodeState.ABSENT),
        )

    def _to_run(self) -> tuple[str, ...]:
        """The nodes that run afterwards."""
        if not self.alone:
            return self.manifest.running
        others = [name for name in self.power.running if name not in self.nodes]
        return (*others, *(name for name in self.nodes if name in self.manifest.running))

    def _check(self) -> None:
        session, manifest = self.session, self.manifest
        session.events.add("", "check", "begin")
        plan = session.plan
        if self.alone:
            manifest = replace(manifest, nodes=tuple(n for n in manifest.nodes if n.name in self.nodes))
            plan = replace(plan, nodes=tuple(n for n in plan.nodes if n.name in self.nodes))
        problems = lab_problems(manifest, session.record.id, plan, session.machines.captures().platform())
        if not problems:
            problems = file_problems(session.machines, manifest)
        if problems:
            raise Conflict(
                f"snapshot {manifest.name!r} cannot be brought back",
                details=[*problems, "the lab has not been touched"],
                hint=(not self.alone and self._way()) or f"klab snapshots {plan.name} lists the others",
            )
        session.events.add("", "check", "done")

    def _way(self) -> str:
        """How to make the lab the size that the snapshot has; empty where it has."""
        plan = self.session.plan
        for node in plan.nodes:
            if self.manifest.node(node.name) is None:
                return f"klab node rm {plan.name} {node.name} first"
        for record in self.manifest.nodes:
            if plan.node(record.name) is None:
                return f"klab node add {plan.name} {record.name} --role {record.role} first"
        return ""

    def _announce(self) -> None:
        """Say what will have ended by then: it is repaired afterwards, and takes time."""
        for what, text in (
            (CERTIFICATE, "they ended {days:.0f} days ago by the clocks that will judge them: they will be renewed"),
            (TOKEN, "the last bootstrap token ended {days:.0f} days ago: there will be a new one"),
        ):
            if what in self.expired and self._has_cluster():
                self.session.events.add("", f"{what}s", "note", text.format(days=self.expired[what]))

    # --- the restore itself ---------------------------------------------------------------------------

    def _save(self, attempt: Attempt, identity: str) -> Attempt:
        session = self.session
        session.machines.power_off([n for n, s in session.machines.states().items() if s == NodeState.CRASHED])
        if not self.keep:
            return attempt
        names = {m.name for m in session.snapshot_store.manifests()}
        moment = save(session, attempt, identity, self.power)
        name = made_name(session.lab.clock(), names, auto=True)
        note = f"before the restore of {self.manifest.name}"
        draft = build_manifest(session, identity, self.power, moment, name, note=note, auto=True, missing=self.missing)
        return replace(attempt, data={**attempt.data, "draft": to_json(draft)})

    def _go_on(self, attempt: Attempt) -> None:
        session = self.session
        session.events.add("", "clocks", "begin")
        with self._timed("resume"), session.attempts.step(attempt, "resume"):
            if not self.alone:
                session.snapshot_store.set_current(self.manifest.id)
            resume(session, self._to_run())
        self.verification.knock()
        with self._timed("clocks"), session.attempts.step(attempt, "clocks"):
            unset = set_clocks(session, self._to_run())
        self.warnings += [f"the clock of {name} could not be set: {why}" for name, why in unset.items()]

    # --- is it there again? -----------------------------------------------------------------------

    def _verify(self) -> None:
        with self._timed("certificates"):
            renewed = self._repair_certificates()
        if renewed:
            self.verification = self._verification()  # one that has the new ones
        else:
            del self.seconds["certificates"]
        if self.manifest.missing and self._has_cluster():
            self.warnings.append("the lab was not Ready when this snapshot was taken, and is as it was then")
            self.warnings += self.manifest.missing
        with self._timed("verify"):
            self.asked = self.verification.wait()
        self._repair_token()

    def _verification(self) -> Verification:
        return Verification(self.session, self._to_run(), ready=not self.manifest.missing)

    def _has_cluster(self) -> bool:
        return self.session.plan.bootstrap == "full" and bool(self.manifest.running)

    def _repair_certificates(self) -> bool:
        """Renew what has ended, and say whether anything had: nothing becomes Ready with it."""
        noted = CERTIFICATE in self.manifest.expires
        if not self._has_cluster() or (noted and CERTIFICATE not in self.expired):
            return False
        session, lab = self.session, self.session.lab
        # What was noted may be about those before the last renewal.
        end = first_certificate(session, self._to_run())
        host = lab.clock()
        if end is None and not noted:
            return False
        if end is not None and not expired({CERTIFICATE: end}, guests=session.guest_time(host), host=host):
            return False
        certificates.renew_locked(lab)
        self.warnings.append("certificates had ended and have been renewed")
        return True

    def _repair_token(self) -> None:
        if not self._has_cluster() or self.manifest.missing or TOKEN not in self.expired:
            return
        api, why = Api(self.session.lab.folder, self.session.plan), ""

        def made() -> bool:
            nonlocal why
            try:
                fresh_token(api)
            except UnreachableError as error:
                why = error.message
                return False
            return True

        if poll(made, Deadline.after(TOKEN_SECONDS)):
            said = "the bootstrap token had ended; klab token prints the command that joins with a new one"
        else:
            said = f"the bootstrap token had ended, and no new one could be made ({why}); klab token makes one"
        self.warnings.append(said)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[part] = time.monotonic() - began


def keep_auto(session: Session, attempt: Attempt) -> tuple[Manifest | None, str]:
    """Let the automatic snapshot of a restore exist. What the machines left behind goes, and first: it takes room.

    Returns:
        It, or None; and why there is none though one was to be made, empty otherwise.

    Raises:
        LabError, OSError: it cannot be brought to its end; the same call again goes on.
    """
    session.machines.captures().forget([], merge=False)
    with session.attempts.step(attempt, "keep"):
        if not attempt.id:
            return None, ""
        try:
            manifest = with_digests(
                session, replace(from_json(attempt.data["draft"]), expires=_inherited(session, attempt))
            )
            session.snapshot_store.write(manifest)
        except (LabError, OSError) as error:
            # Cut off where it is given up, it is there no more.
            if not _is_full(error) and attempt.id in set(session.machines.captures().keys()):
                raise
        else:
            return manifest, ""
        # Kept half-made it would keep the disk full, and every command that could make room waits for its end.
        session.snapshot_store.remove([attempt.id])
        session.machines.captures().forget([attempt.id])
        return None, "the lab as it was before could not be kept: the disk is full"


def _is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        error = error.__cause__
    return False


def _inherited(session: Session, attempt: Attempt) -> dict[str, float]:
    """What is known of the ends of certificates of a lab that was not asked: what the one below it knew."""
    return next((dict(m.expires) for m in session.snapshot_store.manifests() if m.id == attempt.data["stand"]), {})


def go_back(session: Session, attempt: Attempt) -> str:
    """Bring the lab back to how it was before a restore. May be done again.

    Returns:
        What became of it, as a clause.

    Raises:
        LabError: a machine does not come back; the attempt stays open.
    """
    switched = attempt.reached("revert")
    if switched and not attempt.id:
        session.attempts.end()
        return (
            "there is no automatic snapshot to go back to; "
            "klab restore again goes on, klab status shows which machines run"
        )
    if switched and attempt.step != "undone":
        with session.attempts.step(attempt, "back"):
            session.machines.captures().revert(attempt.id, [n.name for n in session.plan.nodes], lambda _node: None)
            session.snapshot_store.set_current(attempt.data["stand"])
    session.machines.captures().resume(attempt.running)
    if switched:
        # From here on there is nothing any more to go back to, and no need.
        with session.attempts.step(attempt, "undone"):
            session.machines.captures().forget([attempt.id])
    elif attempt.id:
        # Before anything is written: the disk may be full.
        session.machines.captures().forget([attempt.id])
    set_clocks(session, attempt.running)
    session.attempts.end()
    return "the lab is as it was before"
