"""A lab whose lock is held, with everything that an act on its snapshots needs; and how an act is undone."""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.cluster.events import Journal
from lab.cluster.lab import Lab
from lab.errors import Conflict, Interrupted, LabError, Remedy, refusal
from lab.machines.captures import Captures
from lab.machines.protocol import Machines, NodeState
from lab.plan.model import Plan
from lab.signals import ENDING
from lab.snapshots.journal import AttemptJournal
from lab.snapshots.names import made_id
from lab.snapshots.store import SnapshotStore
from lab.store import Record

REFUSED_HINT = (
    "free space there or change the permissions; ",
    Remedy("snapshot prune", options=("--keep", "3")),
    " removes old snapshots",
)


@dataclass(frozen=True, slots=True)
class Power:
    """Which nodes run and which are off, in the plan's order."""

    running: tuple[str, ...]
    off: tuple[str, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.running + self.off


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a command over one lab, which holds the lab's lock."""

    lab: Lab
    record: Record
    machines: Machines
    events: Journal
    attempts: AttemptJournal
    snapshot_store: SnapshotStore

    @property
    def plan(self) -> Plan:
        return self.lab.plan

    @property
    def captures(self) -> Captures:
        return self.machines.captures()

    def guest_time(self, moment: float) -> float:
        """What the guests' clocks should show at a moment of the host's; both in seconds since 1970."""
        return self.record.guest_clock.guest(moment)

    def guest_now(self) -> float:
        """What the guests' clocks should show now, in seconds since 1970."""
        return self.guest_time(self.lab.clock())

    def new_id(self) -> str:
        return made_id(self.lab.clock(), secrets.token_hex(4))

    def power(self) -> Power:
        """Which machines run and which are off.

        Raises:
            Conflict: one is neither.
        """
        states = self.machines.states()
        odd = {name: state for name, state in states.items() if state not in {NodeState.RUNNING, NodeState.STOPPED}}
        if odd:
            name = next(iter(odd))
            absent = odd[name] == NodeState.ABSENT
            way = (
                (Remedy("node replace", node=name), " recreates it")
                if absent
                else (Remedy("start", node=name), " starts it")
            )
            raise Conflict(
                f"not every machine of lab {self.lab.folder.name!r} either runs or is off",
                details=[f"{name} is {state.value}" for name, state in odd.items()],
                hint=way,
            )
        return Power(
            tuple(n for n, s in states.items() if s == NodeState.RUNNING),
            tuple(n for n, s in states.items() if s == NodeState.STOPPED),
        )


def open_session(lab: Lab, record: Record) -> Session:
    """A session; the caller holds the lab's lock."""
    return Session(
        lab, record, lab.machines(record), lab.journal(), AttemptJournal(lab.folder), SnapshotStore(lab.folder)
    )


@contextmanager
def undoing(undo: Callable[[], str]) -> Iterator[None]:
    """Undo what was done inside when it fails, and add the outcome to the error.

    Args:
        undo: undoes it and returns a clause that tells how the lab is now; does not raise LabError or OSError.

    Raises:
        LabError: as inside; Interrupted for Ctrl-C, HostError for what the machine refuses.
    """
    try:
        yield
    except BaseException as error:
        with uninterrupted():
            said = undo()
        if isinstance(error, LabError):
            error.details = (*error.details, said)
            raise
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted("stopped", details=[said]) from None
        if (refused := refusal(error, said=said, hint=REFUSED_HINT)) is not None:
            raise refused from error
        error.add_note(said)
        raise


def undone(undo: Callable[[], str], *, otherwise: str) -> str:
    """Run `undo` and return its message; if it fails, format `otherwise` with the reason."""
    try:
        return undo()
    except LabError as error:
        why = "; ".join((error.message, *error.details))
    except OSError as error:
        why = str(error)
    return otherwise.format(why=why)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C, and what is taken as Ctrl-C, inside: what is being undone must be undone completely."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.ExitStack() as stack:
        for each in ENDING:
            stack.callback(signal.signal, each, signal.signal(each, signal.SIG_IGN))
        yield
