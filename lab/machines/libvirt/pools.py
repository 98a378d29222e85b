"""A lab's storage pool in libvirt, and the pool that its box is in."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import HostError
from lab.host.capacity import DiskRoom
from lab.host.local import free_at
from lab.machines.libvirt import consoles, definitions
from lab.machines.libvirt.connection import absent, find_volume, library, start_if_inactive, translate_errors
from lab.machines.libvirt.qemu_user import qemu_user
from lab.machines.libvirt.storage_jobs import when_idle
from lab.machines.ownership import Owner
from lab.machines.vagrant.command import BOX_VERSION

if TYPE_CHECKING:
    import libvirt

DEFAULT_POOL = "default"
DEFAULT_FOLDER = Path("/var/lib/libvirt/images")


def find_box_pool(connection: libvirt.virConnect, name: str) -> libvirt.virStoragePool | None:
    """The storage pool that a scenario names; for libvirt's usual one any that has the usual folder.

    Two pools cannot have the same folder (libvirt, src/conf/virstorageobj.c).
    """
    library_ = library()
    try:
        return connection.storagePoolLookupByName(name)
    except library_.libvirtError as error:
        if not absent(error):
            raise
    if name != DEFAULT_POOL:
        return None
    there = connection.listAllStoragePools(library_.VIR_CONNECT_LIST_STORAGE_POOLS_DIR)
    return next((pool for pool in there if Path(definitions.pool_path(pool.XMLDesc())) == DEFAULT_FOLDER), None)


def disk_room(connection: libvirt.virConnect, name: str) -> DiskRoom:
    """The space where the disks of a lab whose scenario names that pool will lie.

    Raises:
        HostError: libvirtd does not answer.
    """
    with translate_errors(f"the storage pool {name} cannot be inspected"):
        pool = find_box_pool(connection, name)
        folder = DEFAULT_FOLDER if pool is None else Path(definitions.pool_path(pool.XMLDesc()))
        found, free = free_at(folder)
        if found != folder and pool is not None and pool.isActive():  # klab may not look there, but libvirtd may
            when_idle(pool, pool.refresh)
            found, free = folder, int(pool.info()[3])
    return DiskRoom(found, free, elsewhere="provider.libvirt.pool in the scenario names a pool on another disk")


def base_volume(box: str) -> str:
    """What vagrant-libvirt 0.11 calls the copy of a box's disk in a pool (action/handle_box_image.rb).

    Args:
        box: what Vagrant calls the box; it carries a digest, so a name is one content, whoever has put it there.
    """
    return f"{box.replace('/', '-VAGRANTSLASH-')}_vagrant_box_image_{BOX_VERSION}_box.img"


def forget_box(connection: libvirt.virConnect, box: str) -> None:
    """Delete the copies of a box's disk in libvirt's pools, except those that a disk lies on, of whoever's lab.

    Args:
        connection: to the libvirt.
        box: what Vagrant calls the box.

    Raises:
        MachineError, HostError: libvirt does not tell, or does not delete one.
    """
    with translate_errors(f"libvirt's copy of the box {box} cannot be removed"):
        there = connection.listAllStoragePools()
        pools = [pool for pool in there if pool.isActive()]
        copies = [copy for pool in pools if (copy := find_volume(pool, base_volume(box))) is not None]
        if not copies:
            return
        # What is in a pool that is off cannot be seen.
        hidden = [Path(definitions.pool_path(pool.XMLDesc())) for pool in there if not pool.isActive()]
        used = {_below(each) for pool in pools for each in pool.listAllVolumes()}
        for copy in copies:
            folder = Path(copy.path()).parent
            if copy.path() not in used and not any(each.is_relative_to(folder) for each in hidden):
                when_idle(copy.storagePoolLookupByVolume(), copy.delete)


def _below(volume: libvirt.virStorageVol) -> str | None:
    """The file that a volume lies on. libvirt lists one whose file is gone until it reads the pool again."""
    try:
        return definitions.backing_path(volume.XMLDesc())
    except library().libvirtError as error:
        if absent(error):
            return None
        raise


class LabPool:
    """One lab's disks in one libvirt."""

    def __init__(self, connection: libvirt.virConnect, owner: Owner) -> None:
        self._connection = connection
        self._owner = owner

    def box_pool(self, name: str) -> libvirt.virStoragePool:
        """The storage pool that holds boxes, started; libvirt's usual one is made where it is missing.

        It is a person's own and may hold many images: it is not read again.

        Raises:
            HostError: there is no pool of that name, it is not a folder, cannot be started, or QEMU cannot reach it.
        """
        with translate_errors(f"the storage pool {name} cannot be used"):
            pool = find_box_pool(self._connection, name)
            if pool is None and name == DEFAULT_POOL:
                pool = self._connection.storagePoolDefineXML(
                    definitions.directory_pool(DEFAULT_POOL, None, str(DEFAULT_FOLDER))
                )
                pool.build()
                pool.setAutostart(1)
            if pool is None:
                raise HostError(
                    f"libvirt has no storage pool called {name!r}",
                    details=[self._folders()],
                    hint="set provider.libvirt.pool in the scenario to one of those, or leave it out",
                )
            kind = definitions.pool_type(pool.XMLDesc())
            if kind != "dir":
                raise HostError(
                    f"the storage pool {pool.name()!r} is of type {kind}; labs need a folder, type dir",
                    details=[self._folders()],
                    hint="set provider.libvirt.pool in the scenario to one of those; "
                    "virsh pool-create-as klab dir --build --target FOLDER makes one",
                )
            _start(pool)
            _refuse_closed(self._connection, pool)
            return pool

    def _folders(self) -> str:
        """The pools that labs can have, for a person."""
        there = self._connection.listAllStoragePools(library().VIR_CONNECT_LIST_STORAGE_POOLS_DIR)
        return f"pools of type dir here: {', '.join(sorted(pool.name() for pool in there)) or 'none'}"

    def ensure(self, parent: libvirt.virStoragePool) -> libvirt.virStoragePool:
        """The lab's own storage pool, a folder inside the one that holds its box."""
        with translate_errors("the lab's storage pool cannot be made"):
            pool = self.find()
            if pool is None:
                path = f"{definitions.pool_path(parent.XMLDesc())}/{self._owner.pool_name}"
                # It is the person's own: klab keeps files there that libvirt alone would make unreadable (own_files).
                owner = os.geteuid(), os.getegid()
                xml = definitions.directory_pool(self._owner.pool_name, self._owner.pool_uuid, path, owner=owner)
                pool = self._connection.storagePoolDefineXML(xml)
                pool.setAutostart(1)
            if not pool.isActive():
                pool.build()
            _activate(pool)
            return pool

    def find(self) -> libvirt.virStoragePool | None:
        """The lab's storage pool, if there is one."""
        with translate_errors("the lab's storage pool cannot be looked up"):
            try:
                return self._connection.storagePoolLookupByUUIDString(self._owner.pool_uuid)
            except library().libvirtError as error:
                if absent(error):
                    return None
                raise

    def volumes(self) -> dict[str, libvirt.virStorageVol]:
        """Everything in the lab's storage pool, by name."""
        pool = self.find()
        if pool is None:
            return {}
        with translate_errors("the lab's disks cannot be listed"):
            _activate(pool)
            return {volume.name(): volume for volume in pool.listAllVolumes()}

    def remove_volume(self, name: str) -> None:
        """Delete a volume of that name, where there is one."""
        volume = self.volumes().get(name)
        if volume is not None:
            with translate_errors(f"the volume {name} cannot be removed"):
                when_idle(volume.storagePoolLookupByVolume(), volume.delete)

    def remove(self) -> None:
        """Delete the lab's disks, and the pool and folder they lie in."""
        pool = self.find()
        if pool is None:
            return
        with translate_errors("the lab's disks cannot be removed"):
            if not pool.isActive():
                # A folder that is gone already keeps a pool from starting; then there is nothing to delete.
                with contextlib.suppress(library().libvirtError):
                    pool.create()
            if pool.isActive():
                when_idle(pool, pool.refresh)
                consoles.empty(Path(definitions.pool_path(pool.XMLDesc())))
                for volume in pool.listAllVolumes():
                    when_idle(pool, volume.delete)
                when_idle(pool, pool.destroy)
                pool.delete()
            pool.undefine()


def _refuse_closed(connection: libvirt.virConnect, pool: libvirt.virStoragePool) -> None:
    """Make sure that QEMU can walk to a pool, as it cannot into a person's home.

    Raises:
        HostError: a folder on the way is closed.
    """
    user, folder = qemu_user(connection), Path(definitions.pool_path(pool.XMLDesc()))
    closed = None if user is None else user.closed(folder)
    if user is not None and closed is not None:
        path = shlex.quote(str(closed))
        raise HostError(
            f"the storage pool {pool.name()!r} is out of reach for QEMU, which libvirt runs as {user.name}",
            details=[f"its folder is {folder}", f"{user.name} may not walk through {closed}"],
            hint=f"setfacl -m u:{user.uid}:x {path} opens that folder for it alone; "
            "or set provider.libvirt.pool in the scenario to a pool elsewhere",
        )


def _activate(pool: libvirt.virStoragePool) -> None:
    _start(pool)
    when_idle(pool, pool.refresh)


def _start(pool: libvirt.virStoragePool) -> None:
    """Start a pool that a restart of the host, or a person, has left off.

    Raises:
        HostError: it does not start, as when its folder is gone or not mounted yet.
    """
    if pool.isActive():
        return
    try:
        start_if_inactive(pool)
    except library().libvirtError as error:
        folder = definitions.pool_path(pool.XMLDesc())
        raise HostError(
            f"the storage pool {pool.name()!r} cannot be started",
            details=[str(error)],
            hint=f"its folder is {folder}: mount its disk, or make the folder with virsh pool-build {pool.name()}",
        ) from error
