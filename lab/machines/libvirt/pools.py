"""A lab's storage pool in libvirt, and the pool that its box is in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lab.errors import HostError
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import absent, library, start_if_inactive, translate_errors
from lab.machines.libvirt.storage_jobs import when_idle
from lab.machines.ownership import Owner

if TYPE_CHECKING:
    import libvirt

DEFAULT_POOL = "default"
DEFAULT_POOL_PATH = "/var/lib/libvirt/images"


class LabPool:
    """One lab's disks in one libvirt."""

    def __init__(self, connection: libvirt.virConnect, owner: Owner) -> None:
        self._connection = connection
        self._owner = owner

    def box_pool(self, name: str) -> libvirt.virStoragePool:
        """The storage pool that holds boxes; libvirt's usual one is made where it is missing.

        Raises:
            HostError: there is no pool of that name, or it is not a folder.
        """
        with translate_errors(f"the storage pool {name} cannot be used"):
            pool = self._pool_by_name(name)
            if pool is None and name == DEFAULT_POOL:
                pool = self._connection.storagePoolDefineXML(
                    definitions.directory_pool(DEFAULT_POOL, None, DEFAULT_POOL_PATH)
                )
                pool.build()
                pool.setAutostart(1)
            if pool is None:
                names = ", ".join(p.name() for p in self._connection.listAllStoragePools()) or "none"
                raise HostError(
                    f"libvirt has no storage pool called {name!r}",
                    details=[f"it has: {names}"],
                    hint="set provider.libvirt.pool in the scenario to one of those, or leave it out",
                )
            if definitions.pool_type(pool.XMLDesc()) != "dir":
                raise HostError(
                    f"the storage pool {name!r} is not a folder",
                    hint="set provider.libvirt.pool in the scenario to a pool of type dir",
                )
            _activate(pool)
            return pool

    def ensure(self, parent: libvirt.virStoragePool) -> libvirt.virStoragePool:
        """The lab's own storage pool, a folder inside the one that holds its box."""
        with translate_errors("the lab's storage pool cannot be made"):
            pool = self.find()
            if pool is None:
                path = f"{definitions.pool_path(parent.XMLDesc())}/{self._owner.pool_name}"
                xml = definitions.directory_pool(self._owner.pool_name, self._owner.pool_uuid, path)
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
                for volume in pool.listAllVolumes():
                    when_idle(pool, volume.delete)
                when_idle(pool, pool.destroy)
                pool.delete()
            pool.undefine()

    def _pool_by_name(self, name: str) -> libvirt.virStoragePool | None:
        try:
            return self._connection.storagePoolLookupByName(name)
        except library().libvirtError as error:
            if absent(error):
                return None
            raise


def _activate(pool: libvirt.virStoragePool) -> None:
    if not pool.isActive():
        start_if_inactive(pool)
    when_idle(pool, pool.refresh)
