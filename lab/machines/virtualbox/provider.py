"""VirtualBox, as the registry of providers has it."""

from __future__ import annotations

from pathlib import Path

from lab import process
from lab.host.profile import REAL_TIME, HostProfile
from lab.machines.features import BoxFormat, Features
from lab.machines.protocol import Machines
from lab.plan.model import Plan
from lab.store import Home, LabFolder, Record


class VirtualBoxProvider:
    """See `lab.machines.features.Provider`."""

    name = "virtualbox"
    title = "VirtualBox"
    features = Features(disk_transfer=False, private_host=False, box_format=BoxFormat.VIRTUALBOX)

    def installed(self) -> bool:
        return process.have("VBoxManage")

    def profile(self, home: Home, cpus: int) -> HostProfile:  # noqa: ARG002
        return REAL_TIME  # without hardware virtualization it runs no machine of 64 bits

    def open(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> Machines:
        from lab.machines.virtualbox.machines import VirtualBoxMachines

        return VirtualBoxMachines(home, folder, plan, record, box)
