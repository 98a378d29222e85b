"""The lab that a command works on, whatever it does with it: start, scale, renew, snapshot, destroy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cluster.clients.reach import Reach, direct
from lab.cluster.events import Journal, Listener
from lab.errors import Conflict, Remedy
from lab.machines.protocol import Machines
from lab.plan.model import Plan, create_command, import_command
from lab.store import Home, LabFolder, Record
from lab.waiting import Deadline

if TYPE_CHECKING:
    from lab.cluster.clients.api import Api

# Seconds until Ready, by default, where hardware virtualization works and where it does not.
TIMEOUT_ACCELERATED = 15 * 60.0
TIMEOUT_EMULATED = 60 * 60.0

OpenMachines = Callable[[Home, LabFolder, Plan, Record, Path | None], Machines]


def by_record(home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> Machines:
    """The machines of the provider that the lab's record names; as `lab.machines.providers.open_machines`."""
    from lab.machines.providers import open_machines  # late: a lab that is only named or listed needs no provider

    return open_machines(home, folder, plan, record, box)


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab on this machine: where it is, what was planned for it, and the way to its machines.

    `lab.app.labs` finds one and gets to where its machines are. `timeout` is seconds until it must be
    Ready. `clock` is the host's, in seconds since 1970; the guests' clocks are set by it.
    `reach` tells where a node's port is reached. `deadline_after` makes a deadline of seconds.
    """

    home: Home
    folder: LabFolder
    plan: Plan
    open_machines: OpenMachines = by_record
    timeout: float | None = None
    listener: Listener | None = None
    clock: Callable[[], float] = time.time
    reach: Reach = direct
    deadline_after: Callable[[float], Deadline] = Deadline.after

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def record(self) -> Record:
        """What lab.json holds now; errors as `LabFolder.record`."""
        return self.folder.record()

    def watched_by(self, listener: Listener | None, timeout: float | None = None) -> Lab:
        """The same lab, whose events go to `listener`, with another time limit (seconds); None keeps what it has."""
        return replace(self, listener=listener or self.listener, timeout=timeout or self.timeout)

    def finished(self) -> Record:
        """The record of a lab that was made completely: its machines may be switched, changed, renewed.

        Raises:
            Conflict: it is half made or half destroyed.
        """
        record = self.folder.record()
        refuse_half_destroyed(self.folder, record)
        if record.phase != "ready":
            raise Conflict(
                f"lab {self.folder.name!r} is half made",
                hint=(
                    again(record, self.plan),
                    " continues it, ",
                    Remedy("destroy", lab=self.folder.name),
                    " removes it",
                ),
            )
        return record

    def machines(self, record: Record | None = None, box: Path | None = None) -> Machines:
        """Its machines; new ones are made from a box file, none without. The record is read where none is given."""
        return self.open_machines(self.home, self.folder, self.plan, record or self.record, box)

    def api(self) -> Api:
        """Its API server."""
        from lab.cluster.clients.api import Api  # brings cryptography, which takes a while to import

        return Api(self.folder, self.plan, self.reach)

    def journal(self) -> Journal:
        """Where its events go."""
        return Journal(self.folder.events, self.listener)

    def deadline(self, record: Record) -> Deadline:
        """Until when it may take to become Ready: `timeout` seconds, or what its host is given by default."""
        usual = TIMEOUT_ACCELERATED if record.accelerated else TIMEOUT_EMULATED
        return self.deadline_after(self.timeout or usual)


def again(record: Record, plan: Plan) -> Remedy:
    """The command that continues a lab that is half made; FILE is for the person to know."""
    from lab.scenario.library import shipped_names

    if record.checkpoint:
        return import_command("FILE", record.name)
    which = plan.scenario if plan.scenario in shipped_names() else "FILE"
    return create_command([which], plan.name if plan.name != plan.scenario else None, plan.seat)


def refuse_half_destroyed(folder: LabFolder, record: Record) -> None:
    """Make sure that a lab is not about to go; raises Conflict."""
    if record.phase == "destroying":
        raise Conflict(
            f"lab {folder.name!r} is half destroyed",
            hint=(Remedy("destroy", lab=folder.name, options=("-y",)), " finishes that"),
        )
