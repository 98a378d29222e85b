"""The provider of fake machines, whose behaviour is given when it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.host.capacity import DiskRoom, LabNetworks
from lab.host.profile import REAL_TIME, HostProfile
from lab.machines.fake.behaviour import Behaviour
from lab.machines.fake.machines import FakeMachines
from lab.machines.features import BoxFormat, Features
from lab.plan.model import Plan
from lab.store import Home, LabFolder, Record

FEATURES = Features(disk_transfer=True, private_host=False, box_format=BoxFormat.LIBVIRT)


@dataclass(frozen=True, kw_only=True)
class FakeProvider(Behaviour):
    """See `lab.machines.features.Provider` and `Behaviour`.

    `make` makes the machines, from the arguments of `open` and a behaviour: another class than `FakeMachines`.
    """

    name: str = "fake"
    title: str = "fake"
    features: Features = FEATURES
    make: Callable[..., FakeMachines] = FakeMachines

    def installed(self) -> bool:
        return False

    def profile(self, home: Home, cpus: int) -> HostProfile:  # noqa: ARG002
        return REAL_TIME

    def disk_room(self, home: Home, pool: str) -> DiskRoom:  # noqa: ARG002
        return DiskRoom(home.root, self.free, elsewhere="nothing moves them")

    def networks(self, plan: Plan) -> LabNetworks:
        return LabNetworks.bridged(plan)

    def forget_box(self, home: Home, folder: str) -> None:
        """There is none."""

    def open(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> FakeMachines:
        return self.applied(self.make(home, folder, plan, record, box, self))
