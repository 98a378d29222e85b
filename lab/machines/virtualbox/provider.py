"""VirtualBox, as the registry of providers has it."""

from __future__ import annotations

from pathlib import Path

from lab import process
from lab.host.capacity import NETWORK, DiskRoom, LabNetworks
from lab.host.local import free_at
from lab.host.profile import REAL_TIME, HostProfile
from lab.machines.features import BoxFormat, Features
from lab.machines.protocol import Machines
from lab.machines.vagrant import vagrant_home
from lab.machines.virtualbox.manage import manage
from lab.machines.virtualbox.output import parse_interfaces, parse_machine_folder
from lab.plan.model import Plan
from lab.store import Home, LabFolder, Record

# What VirtualBox has where nothing else was set (its manual, "Where VirtualBox Stores its Files").
MACHINE_FOLDER = "~/VirtualBox VMs"


class VirtualBoxProvider:
    """See `lab.machines.features.Provider`."""

    name = "virtualbox"
    title = "VirtualBox"
    features = Features(disk_transfer=False, private_host=False, box_format=BoxFormat.VIRTUALBOX)

    def installed(self) -> bool:
        return process.have("VBoxManage")

    def profile(self, home: Home, cpus: int) -> HostProfile:  # noqa: ARG002
        from lab.machines.virtualbox import host

        host.check()
        return REAL_TIME  # without hardware virtualization it runs no machine of 64 bits

    def disk_room(self, home: Home, pool: str) -> DiskRoom:  # noqa: ARG002
        told = manage("list", "systemproperties").stdout
        folder = Path(parse_machine_folder(told) or MACHINE_FOLDER).expanduser()
        return DiskRoom(*free_at(folder), elsewhere="VBoxManage setproperty machinefolder moves them")

    def networks(self, plan: Plan) -> LabNetworks:
        """A host-only interface with this very network is what Vagrant uses again; it never removes one."""
        told = manage("list", "hostonlyifs").stdout
        own = [name for name, network in parse_interfaces(told).items() if network == plan.networks.cidr]
        return LabNetworks({NETWORK: plan.networks.cidr}, tuple(own))

    def forget_box(self, home: Home, folder: str) -> None:  # noqa: ARG002
        from lab.machines.virtualbox import masters

        for entry in vagrant_home.entries(folder, "virtualbox*"):
            if masters.remove(entry):
                vagrant_home.forget(entry)

    def open(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> Machines:
        from lab.machines.virtualbox.machines import VirtualBoxMachines

        return VirtualBoxMachines(home, folder, plan, record, box)
