"""Finish or undo the attempt that a killed klab has left; every command that opens a lab does so first.

A snapshot is undone. A restore is undone as long as no machine was reverted, and finished
from then on. A removal is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from lab.cluster.lab import Lab
from lab.errors import Conflict, LabError
from lab.snapshots.automatic import keep_auto
from lab.snapshots.freeze import set_clocks
from lab.snapshots.journal import Attempt
from lab.snapshots.kubernetes import take_over
from lab.snapshots.remove import finish_removal
from lab.snapshots.restore import go_back
from lab.snapshots.session import Session, open_session, uninterrupted
from lab.snapshots.take import take_back


def silent(_text: str) -> None:
    """Say nothing."""


def recover(lab: Lab, say: Callable[[str], None] = silent) -> str:
    """Finish or undo what was left, unless another klab works on the lab.

    Args:
        lab: the lab.
        say: told, as a sentence, that something that takes time begins.

    Returns:
        The outcome, as a sentence; empty where there was nothing to do.

    Raises:
        LabError: it cannot be finished; the next command tries again.
    """
    with ExitStack() as held:
        try:
            held.enter_context(lab.folder.lock())
        except Conflict:
            return ""
        session = open_session(lab, lab.folder.record())
        return finish(session, say) if session.record.phase == "ready" else ""


def finish(session: Session, say: Callable[[str], None] = silent) -> str:
    """As `recover`, for a lab whose lock is held."""
    attempt = session.attempts.read()
    if attempt is None:
        return ""
    if attempt.act == "restore":
        say("finishing an unfinished restore first")
    with uninterrupted():
        try:
            said = _finish(session, attempt)
        except LabError as error:
            left = {"snapshot": "a snapshot", "restore": "a restore", "remove": "a removal of snapshots"}[attempt.act]
            error.details = (
                *error.details,
                f"a klab that was killed had left {left} unfinished, and finishing it failed",
            )
            raise
    session.events.add("", "recover", "note", said)
    return said


def _finish(session: Session, attempt: Attempt) -> str:
    if attempt.act == "remove":
        finish_removal(session, attempt)
        return "an unfinished removal of snapshots was finished"
    if attempt.act == "snapshot":
        if session.snapshot_store.exists(attempt.id):
            session.snapshot_store.set_current(attempt.id)
            session.attempts.end()
            return "a snapshot was complete, although klab was killed"
        take_back(session, attempt)
        return "an unfinished snapshot was undone"
    if attempt.step in {"back", "undone"} or not attempt.reached("revert"):
        go_back(session, attempt)
        return "an unfinished restore was undone"
    lost = _finish_restore(session, attempt)
    said = f"an unfinished restore was finished; klab status {session.lab.folder.name} shows how the cluster is"
    return f"{said}; {lost}" if lost else said


def _finish_restore(session: Session, attempt: Attempt) -> str:
    """Finish it; returns why the automatic snapshot could not be kept, empty where it was."""
    running: list[str] = attempt.data["resume"]
    if attempt.step == "revert":
        with session.attempts.step(attempt, "revert"):
            session.captures.revert(attempt.target, attempt.nodes, lambda _node: None)
    if not attempt.reached("keep"):
        with session.attempts.step(attempt, "resume"):
            if len(attempt.nodes) == len(session.plan.nodes):
                session.snapshot_store.set_current(attempt.target)
                session = take_over(session, session.snapshot_store.pick(attempt.target))
            session.captures.resume(running)
        with session.attempts.step(attempt, "clocks"):
            set_clocks(session.machines, session.events, session.guest_now, running)
    _, lost = keep_auto(session, attempt)
    session.attempts.end()
    return lost
