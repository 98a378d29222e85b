"""libvirt, as the registry of providers has it; what needs libvirt's own library is imported when a lab is opened."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lab import process
from lab.errors import HostError
from lab.host.capacity import DiskRoom, LabNetworks, home_room
from lab.host.local import LocalHost
from lab.host.network import wants_private
from lab.host.private_libvirt import PrivateLibvirt
from lab.host.profile import HostProfile
from lab.machines.features import BoxFormat, Features
from lab.machines.protocol import Machines
from lab.machines.vagrant import vagrant_home
from lab.plan.model import Plan
from lab.store import Home, LabFolder, Record


class LibvirtProvider:
    """See `lab.machines.features.Provider`."""

    name = "libvirt"
    title = "libvirt"
    features = Features(disk_transfer=True, private_host=True, box_format=BoxFormat.LIBVIRT)

    def installed(self) -> bool:
        return process.have("libvirtd") or process.have("virtqemud")

    def profile(self, home: Home, cpus: int) -> HostProfile:
        from lab.machines.libvirt.kvm import profile

        return profile(home, cpus)

    def disk_room(self, home: Home, pool: str) -> DiskRoom:
        private_libvirt = PrivateLibvirt(home)
        if private_libvirt.inside or wants_private(private_libvirt):
            return home_room(LocalHost(home))  # what it has in place of the system's folders lies there
        from lab.machines.libvirt.connection import connect
        from lab.machines.libvirt.pools import disk_room

        return disk_room(connect(), pool)

    def networks(self, plan: Plan) -> LabNetworks:
        return LabNetworks.bridged(plan)

    def forget_box(self, home: Home, folder: str) -> None:
        for entry in vagrant_home.entries(folder):
            vagrant_home.forget(entry)
        private_libvirt = PrivateLibvirt(home)
        try:
            private = wants_private(private_libvirt)
        except HostError:
            return  # this person may not use libvirt, and has put nothing there
        if private and not private_libvirt.running:
            return  # what it had of boxes went with its last lab
        from lab.machines.libvirt import connection, pools

        with private_libvirt.entered() if private else contextlib.nullcontext():
            pools.forget_box(connection.connect(), vagrant_home.box_name(folder))

    def open(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> Machines:
        from lab.machines.libvirt.machines import LibvirtMachines

        return LibvirtMachines(home, folder, plan, record, box)
