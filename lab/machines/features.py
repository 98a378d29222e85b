"""What a provider is, and what it can do: the rest of klab reads its features before it acts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from lab.host.capacity import DiskRoom, LabNetworks
from lab.host.profile import HostProfile
from lab.machines.protocol import Machines
from lab.plan.model import Plan
from lab.store import Home, LabFolder, Record


class BoxFormat(StrEnum):
    """The kinds of box that `vagrant box add` takes, by the Vagrant provider that they are for."""

    LIBVIRT = "libvirt"
    VIRTUALBOX = "virtualbox"


@dataclass(frozen=True, slots=True)
class Features:
    """What a provider can do.

    `disk_transfer`: the disks of its machines can leave the host and come from another one, as
    bundles need (`Machines.disk_transfer`). `private_host`: its labs may be in klab's private
    libvirt, whose network the host's other programs do not reach. `box_format`: what it makes machines from.
    """

    disk_transfer: bool
    private_host: bool
    box_format: BoxFormat


class Provider(Protocol):
    """What makes machines: one object for each kind, in the registry `lab.machines.providers`."""

    @property
    def name(self) -> str:
        """As `lab.json` and --provider have it."""
        ...

    @property
    def title(self) -> str:
        """As messages have it."""
        ...

    @property
    def features(self) -> Features: ...

    def installed(self) -> bool:
        """Whether this host has the program that runs its machines."""
        ...

    def profile(self, home: Home, cpus: int) -> HostProfile:
        """How its machines run on this host; the calling thread is where they are (see `providers.enter_host`).

        Args:
            home: klab's home.
            cpus: virtual CPUs of the lab that is to run.

        Raises:
            HostError: they cannot run here in any way.
        """
        ...

    def disk_room(self, home: Home, pool: str) -> DiskRoom:
        """The space where a lab's disks will lie. Makes and starts nothing.

        Args:
            home: klab's home.
            pool: the storage pool that the scenario names, for providers that have such.

        Raises:
            HostError: the provider does not answer.
        """
        ...

    def networks(self, plan: Plan) -> LabNetworks:
        """The networks that a lab takes on this host, where the calling thread is.

        Raises:
            HostError: the provider does not answer.
        """
        ...

    def forget_box(self, home: Home, folder: str) -> None:
        """Delete what was made of a box outside the store, for machines to start from. Idempotent.

        One that a machine lies on, of whoever's lab, stays.

        Args:
            home: klab's home.
            folder: the box's, in the store: NAME@DIGEST.

        Raises:
            HostError, MachineError: one cannot be deleted.
        """
        ...

    def open(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> Machines:
        """The machines of one lab.

        Args:
            home: klab's home.
            folder: the lab's folder.
            plan: what was decided for it.
            record: its id, dilation and epoch.
            box: a .box file in the box's folder, as `lab.boxes.store.vagrant_box` has it; needed by `up` when a
                machine is still to be made.
        """
        ...
