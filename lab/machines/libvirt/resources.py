"""What one lab has in one libvirt: its machines, networks and disks, by what klab makes them with and knows them by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.errors import Conflict, HostError, MachineError
from lab.machines.libvirt.domains import Domains
from lab.machines.libvirt.networks import LabNetworks
from lab.machines.libvirt.pools import LabPool
from lab.machines.ownership import Owner
from lab.plan.model import Plan

if TYPE_CHECKING:
    import libvirt


class Resources:
    """One lab's things in one libvirt."""

    def __init__(self, connection: libvirt.virConnect, owner: Owner) -> None:
        self.connection = connection
        self.owner = owner
        self.domains = Domains(connection, owner)
        self.networks = LabNetworks(connection, owner)
        self.pool = LabPool(connection, owner)

    def refuse_foreign(self, plan: Plan) -> None:
        """Make sure that no foreign domain or network holds a name or UUID of this lab's.

        Raises:
            Conflict: one does.
        """
        self.domains.refuse_foreign(plan)
        self.networks.refuse_foreign(plan.networks)

    def remove_all(self) -> None:
        """Remove everything that carries the lab's mark; one failure does not keep the rest.

        Raises:
            MachineError, Conflict, HostError: the first failure.
        """
        problems: list[MachineError | Conflict | HostError] = []
        steps = [lambda d=domain: self.domains.remove(d) for domain in self.domains.all()]
        for step in (*steps, self.networks.remove, self.pool.remove):
            try:
                step()
            except (MachineError, Conflict, HostError) as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def leftovers(self) -> list[str]:
        """What there still is, one line each."""
        pool = self.pool.find()
        return [
            *(f"machine {domain.name()}" for domain in self.domains.all()),
            *(f"network {network.name()}" for network in self.networks.all()),
            *(f"volume {name}" for name in self.pool.volumes()),
            *([f"storage pool {pool.name()}"] if pool else []),
        ]
