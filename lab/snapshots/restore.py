"""Restore a lab from a snapshot.

    check -> suspend -> save (the automatic snapshot) -> revert -> resume -> clocks -> verify -> keep

Nothing is touched before the whole snapshot has been checked. A restore that fails afterwards reverts to
the automatic snapshot. One that was killed is undone, or finished if a machine had been reverted by then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lab.errors import Advice, Conflict, LabError, Remedy, UsageError
from lab.machines.protocol import NodeState
from lab.snapshots.automatic import draft_auto, keep_auto, prune_autos
from lab.snapshots.check import lab_problems
from lab.snapshots.digest import file_problems
from lab.snapshots.expiry import TOKEN, expired
from lab.snapshots.freeze import not_ready, refuse_no_room, resume, set_clocks
from lab.snapshots.journal import Attempt
from lab.snapshots.kubernetes import plan_of, take_over
from lab.snapshots.manifest import Manifest, from_json
from lab.snapshots.repair import RENEWED, announcements, repair_certificates, repair_token
from lab.snapshots.session import Power, Session, undoing, undone, uninterrupted
from lab.snapshots.verify import Verification
from lab.waiting import background

TRIES_AGAIN = "it could not be undone yet ({why}); the next klab command tries again"
_NOT_WRITTEN = "the automatic snapshot is not finished"
_NOT_REMOVED = "files that are no longer needed are not removed"


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored lab. `auto` is the snapshot that was made of it before.

    `nodes` were restored, `running` run now. `seconds` is how long each part took, by name;
    `asked` after how many seconds of verifying each requirement held, `ready` after how many of
    the restore all did. `warnings` say what failed without harm to the restore. `verification` can
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


def restore_locked(session: Session, name: str | None, node: str | None, *, keep: bool) -> Restored:
    """Restore a lab whose lock is held; arguments and errors as `lab.snapshots.commands.restore`."""
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

    def run(self) -> Restored:
        session, events = self.session, self.session.events
        # Files are read meanwhile: it costs no time.
        with self._timed("check"), background(self._not_ready) as missing:
            self._check()
            self.missing = missing.result()
        self._announce()
        if self.keep:
            refuse_no_room(session.captures, self.power.running, session.lab.folder.name)
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

        with undoing(lambda: undone(lambda: self._back(switched), otherwise=TRIES_AGAIN)):
            with self._timed("automatic snapshot"):
                attempt = self._save(attempt)
            events.add("", "revert", "begin")
            with self._timed("revert"), session.attempts.step(attempt, "revert"):
                session.captures.revert(self.manifest.id, self.nodes, back)
            self._resume(attempt)
            with session.attempts.step(attempt, "verify"):
                self._verify()
        ready = time.monotonic() - self.began
        self._tell_back(ready)
        # The lab is back: Ctrl-C would only leave this to the next command.
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
        """Say that the lab can be used: to finish the automatic snapshot takes longer than the restore."""
        if self.keep and self._to_run():
            state = "Ready" if self.verification.full else "up"
            text = (
                f"{state} after {seconds:.0f} s. You can use the lab now; the automatic snapshot is still being written"
            )
            self.session.events.add("", "back", "note", f"{text}.")

    def _back(self, switched: Sequence[str]) -> str:
        """Undo the restore; returns the outcome, as a clause."""
        attempt = self.session.attempts.read()
        if attempt is None:
            return "the lab is as it was before"
        if attempt.step == "revert" and not switched and self._untouched():
            # Only the preparation has failed, as on a full disk, where a revert might fail as well.
            attempt = replace(attempt, step="save")
        return go_back(self.session, attempt)

    def _untouched(self) -> bool:
        """Whether each machine that was to be reverted still runs; for one that was off this cannot be told."""
        states = self.session.machines.states()
        return set(self.nodes) <= set(self.power.running) and all(states[name].on for name in self.nodes)

    def _tidy(self, attempt: Attempt) -> Manifest | None:
        """Write the automatic snapshot, and remove those that are too many. The lab is back, whatever fails here.

        Returns:
            The automatic snapshot; None where there is none, or not yet.
        """
        auto, what = None, _NOT_WRITTEN if attempt.id else _NOT_REMOVED
        try:
            auto, lost = keep_auto(self.session, attempt)
            what = _NOT_REMOVED
            self.warnings += [lost] if lost else []
            self.session.attempts.end()
            prune_autos(self.session, auto)
        except (LabError, OSError) as error:
            why = "; ".join((error.message, *error.details)) if isinstance(error, LabError) else str(error)
            self.warnings.append(f"{what} yet ({why}); the next klab command continues")
        return auto

    # --- before anything is touched -----------------------------------------------------------------

    def _refuse_alone(self, name: str) -> None:
        node = self.session.plan.node(name)
        if node is not None and node.is_control_plane:
            raise UsageError(
                f"{name} cannot be restored alone: it is a control plane",
                details=["its etcd member would not know what the cluster has agreed on since"],
                hint=(
                    Remedy("restore", options=(self.manifest.name,)),
                    " restores the whole lab; ",
                    Remedy("node replace", node=name),
                    " creates the node again",
                ),
            )

    def _power(self) -> Power:
        """What runs and what is off. A broken machine is no obstacle, unless an automatic snapshot is to be taken."""
        states = self.session.machines.states()
        absent = [name for name, state in states.items() if state == NodeState.ABSENT]
        if absent and self.keep:
            raise Conflict(
                f"the VM of {', '.join(absent)} is missing, so no automatic snapshot can be taken",
                hint=(Remedy("restore", options=("--no-save",)), " restores without one"),
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
        plan = plan_of(self.manifest, session.plan)
        if self.alone:
            manifest = replace(manifest, nodes=tuple(n for n in manifest.nodes if n.name in self.nodes))
            plan = replace(plan, nodes=tuple(n for n in plan.nodes if n.name in self.nodes))
        problems = lab_problems(manifest, session.record.id, plan)
        problems = problems or session.captures.unfit({n.name: n.platform for n in manifest.nodes if n.running})
        problems = problems or file_problems(session.machines, manifest)
        if problems:
            raise Conflict(
                f"snapshot {manifest.name!r} cannot be restored",
                details=[*problems, "the lab has not been touched"],
                hint=(not self.alone and self._way()) or (Remedy("snapshots", lab=plan.name), " lists the others"),
            )
        session.events.add("", "check", "done")

    def _way(self) -> Advice:
        """How to give the lab the nodes that the snapshot has; empty where it has them."""
        plan = self.session.plan
        for node in plan.nodes:
            if self.manifest.node(node.name) is None:
                return (Remedy("node rm", lab=plan.name, node=node.name), " first")
        for record in self.manifest.nodes:
            if plan.node(record.name) is None:
                return (Remedy("node add", lab=plan.name, options=(record.name, "--role", record.role)), " first")
        return ""

    def _not_ready(self) -> tuple[str, ...]:
        session = self.session
        running = self.power.running if self.keep else ()
        return not_ready(session.lab.api(), session.plan, session.machines, running)

    def _announce(self) -> None:
        if self._has_cluster():
            for phase, text in announcements(self.expired):
                self.session.events.add("", phase, "note", text)

    # --- the restore itself ---------------------------------------------------------------------------

    def _save(self, attempt: Attempt) -> Attempt:
        machines = self.session.machines
        machines.power_off([n for n, s in machines.states().items() if s == NodeState.CRASHED])
        return draft_auto(self.session, attempt, self.power, self.manifest, self.missing) if self.keep else attempt

    def _resume(self, attempt: Attempt) -> None:
        session = self.session
        session.events.add("", "clocks", "begin")
        with self._timed("resume"), session.attempts.step(attempt, "resume"):
            if not self.alone:
                session.snapshot_store.set_current(self.manifest.id)
                self.session = session = take_over(session, self.manifest)
            resume(session.captures, session.events, self._to_run())
        self.verification.warm_up()
        with self._timed("clocks"), session.attempts.step(attempt, "clocks"):
            unset = set_clocks(session.machines, session.events, session.guest_now, self._to_run())
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
        if not self._has_cluster():
            return False
        renewed = repair_certificates(self.session, self._to_run(), self.manifest.expires, self.expired)
        self.warnings += [RENEWED] if renewed else []
        return renewed

    def _repair_token(self) -> None:
        if self._has_cluster() and not self.manifest.missing and TOKEN in self.expired:
            self.warnings.append(repair_token(self.session.lab.api()))

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[part] = time.monotonic() - began


def go_back(session: Session, attempt: Attempt) -> str:
    """Undo a restore: revert the lab to its automatic snapshot. May be repeated.

    Returns:
        The outcome, as a clause.

    Raises:
        LabError: a machine cannot be reverted; the attempt stays open.
    """
    switched = attempt.reached("revert")
    if switched and not attempt.id:
        session.attempts.end()
        return (
            "there is no automatic snapshot to revert to; "
            f"run {Remedy('restore')} again to continue, {Remedy('status')} shows which machines run"
        )
    if switched and attempt.step != "undone":
        with session.attempts.step(attempt, "back"):
            session.captures.revert(attempt.id, [n.name for n in session.plan.nodes], lambda _node: None)
            session.snapshot_store.set_current(attempt.data["stand"])
            session = take_over(session, from_json(attempt.data["draft"]))
    session.captures.resume(attempt.running)
    if switched:
        # From here on the automatic snapshot is neither there nor needed.
        with session.attempts.step(attempt, "undone"):
            session.captures.delete([attempt.id])
    elif attempt.id:
        # Before anything is written: the disk may be full.
        session.captures.delete([attempt.id])
    set_clocks(session.machines, session.events, session.guest_now, attempt.running)
    session.attempts.end()
    return "the lab is as it was before"
