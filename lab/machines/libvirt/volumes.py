"""A lab's storage pool on libvirt as files: disk layers and RAM images by name."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.disks import images
from lab.disks.layers import chain
from lab.errors import MachineError, Remedy
from lab.machines.libvirt import definitions, own_files
from lab.machines.libvirt.connection import absent, connect, find_volume, library, translate_errors
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.storage_jobs import when_idle

if TYPE_CHECKING:
    import libvirt

LAYER = ".img"
MEMORY = ".ram"
STREAM_BLOCK = 1 << 18  # what one message of libvirt's carries (src/rpc/virnetprotocol.x)


class LayerStore:
    """The files of one lab. What is in it is looked up when first asked for, and kept until `refresh`."""

    def __init__(self, resources: Resources) -> None:
        self.pool = resources.pool
        self._connection = resources.connection
        self._folder: str | None = None
        self._volumes: dict[str, libvirt.virStorageVol] | None = None
        self._backing: dict[str, str | None] | None = None

    def refresh(self) -> None:
        """Forget what was looked up."""
        self._volumes = self._backing = None

    @property
    def folder(self) -> str:
        """Where the files lie; empty where there is no pool."""
        if self._folder is None:
            pool = self.pool.find()
            with translate_errors("the lab's disks cannot be inspected"):
                self._folder = "" if pool is None else definitions.pool_path(pool.XMLDesc())
        return self._folder

    @property
    def volumes(self) -> dict[str, libvirt.virStorageVol]:
        if self._volumes is None:
            self._volumes = self.pool.volumes()
        return self._volumes

    @property
    def backing(self) -> dict[str, str | None]:
        """By layer the one below it; None where that is the box, or nothing."""
        if self._backing is None:
            found: dict[str, str | None] = {}
            with translate_errors("the lab's disks cannot be inspected"):
                for name, volume in self.volumes.items():
                    if name.endswith(LAYER):
                        below = definitions.backing_path(volume.XMLDesc())
                        inside = below is not None and str(Path(below).parent) == self.folder
                        found[name] = Path(below).name if below is not None and inside else None
            self._backing = found
        return self._backing

    @property
    def names(self) -> list[str]:
        return list(self.volumes)

    @property
    def direct(self) -> bool:
        """Whether klab itself may make files here, and rename them."""
        return os.access(self.folder, os.W_OK)

    def readable(self, name: str) -> bool:
        """Whether klab itself may read this file."""
        return own_files.readable(Path(self.path(name)))

    def owns(self, layer: str) -> bool:
        """Whether klab itself may change a disk layer: qemu-img opens all that it lies on, too."""
        if not self.direct:
            return False
        layers = self.chain(layer)
        return all(self.readable(name) for name in layers) and own_files.readable(self.base(layers[-1]))

    def stamp(self, name: str) -> str:
        """What is another after each change of a file that is read through libvirtd; empty for others.

        libvirt gives files to other owners as machines come and go, so the time of that does not count.
        """
        if self.readable(name):
            return ""
        try:
            found = Path(self.path(name)).stat()
        except OSError:  # it may not be looked at either: it is read each time
            return ""
        return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"

    def reserve(self, *names: str) -> None:
        """Make files that libvirt is about to fill, so that klab may read and write them then; root may anyway.

        Raises:
            MachineError: there is one already, or no room.
        """
        if not self.direct or os.geteuid() == 0:
            return
        try:
            for name in names:
                own_files.make(Path(self.path(name)))
        except OSError as error:
            raise MachineError(
                "a file of the lab's storage pool cannot be made",
                details=[f"{error.strerror}: {error.filename}"],
                hint=(Remedy("snapshot prune", options=("--keep", "3")), " makes room there"),
            ) from error

    @property
    def free(self) -> int:
        """Bytes that are free there.

        Raises:
            MachineError: the pool is gone.
        """
        pool = self.pool.find()
        if pool is None:
            raise MachineError("the lab's storage pool is gone", hint=(Remedy("start"), " recreates it"))
        with contextlib.suppress(OSError):  # klab may not look there
            return shutil.disk_usage(self.folder).free
        with translate_errors("the lab's storage pool cannot be inspected"):
            when_idle(pool, pool.refresh)
            return int(pool.info()[3])

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def size(self, name: str) -> int:
        """Bytes on disk.

        Raises:
            MachineError: there is no such file.
        """
        with translate_errors(f"{name} cannot be inspected"):
            return int(self._needed(name).info()[2])

    def chain(self, layer: str) -> list[str]:
        """A layer and those below it, from the top down.

        Raises:
            MachineError: one is missing.
        """
        found = chain(self.backing, layer)
        lowest = self.backing[found[-1]] if found else layer
        if lowest is not None and lowest not in self.backing:
            raise self._missing(lowest)
        return found

    def base(self, layer: str) -> Path:
        """The file that a lowest layer lies on: the box.

        Raises:
            MachineError: there is none.
        """
        with translate_errors(f"{layer} cannot be inspected"):
            below = definitions.backing_path(self._needed(layer).XMLDesc())
        if below is None:
            raise MachineError(
                f"the disk {layer} is not based on a box",
                details=[self.path(layer)],
                hint=(Remedy("doctor"), " names the node; ", Remedy("node replace"), " recreates it"),
            )
        return Path(below)

    def add_layer(self, name: str, below: str) -> None:
        """Make an empty layer over another; both by name.

        Raises:
            MachineError: there is no such file.
        """
        with translate_errors(f"the disk layer {name} cannot be made"):
            volume = self._needed(below)
            pool = volume.storagePoolLookupByVolume()
            owner = (os.geteuid(), os.getegid()) if self.direct else (0, 0)
            pool.createXML(definitions.overlay_volume(name, int(volume.info()[1]), self.path(below), owner=owner))
        if self.direct:
            own_files.keep(Path(self.path(name)))

    def add_first_layer(self, name: str, capacity: int, box: Path) -> None:
        """Make an empty layer over the box's disk, with room for `capacity` bytes.

        Raises:
            MachineError: it cannot be made.
        """
        pool = self.pool.find()
        if pool is None:
            raise MachineError("the lab's storage pool is gone", hint=(Remedy("start"), " recreates it"))
        with translate_errors(f"the disk layer {name} cannot be made"):
            pool.createXML(definitions.overlay_volume(name, capacity, str(box)))

    def _needed(self, name: str) -> libvirt.virStorageVol:
        """A volume by name. libvirt learns of one that it has not made when the pool is read again.

        Raises:
            MachineError: there is no such file.
        """
        if self._volumes is None and (pool := self.pool.find()) is not None:
            found = find_volume(pool, name)
            if found is not None:
                return found
        volume = self.volumes.get(name)
        if volume is None:
            raise self._missing(name)
        return volume

    def define(self, domain_xml: str) -> None:
        """Let a machine start so from now on."""
        with translate_errors("a machine cannot be defined"):
            self._connection.defineXML(domain_xml)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            volume = self.volumes.pop(name, None)
            self.backing.pop(name, None)
            if volume is None:
                continue
            with translate_errors(f"{name} cannot be removed"):
                try:
                    when_idle(volume.storagePoolLookupByVolume(), volume.delete)
                except library().libvirtError as error:
                    if not absent(error):
                        raise

    def content(self, name: str) -> Iterator[tuple[int, bytes | memoryview]]:
        """The bytes of a file, as `images.stretches`; through libvirtd where klab itself may not read it.

        Raises:
            OSError, MachineError: it cannot be read, or is missing.
        """
        return images.stretches(Path(self.path(name))) if self.readable(name) else self._download(name)

    def _download(self, name: str) -> Iterator[tuple[int, bytes | memoryview]]:
        """The bytes of a file, through libvirtd.

        Over a connection of its own: libvirtd sends as fast as it reads, and what a slow reader of several
        streams on one connection does not take at once would pile up in memory.
        """
        library_ = library()
        with translate_errors(f"{name} cannot be read"), contextlib.closing(connect()) as connection:
            volume = connection.storageVolLookupByKey(self._needed(name).key())
            stream = connection.newStream()
            volume.download(stream, 0, 0, library_.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM)
            at = 0
            while True:
                block = stream.recvFlags(STREAM_BLOCK, library_.VIR_STREAM_RECV_STOP_AT_HOLE)
                if block == -3:  # a hole comes next
                    at += stream.recvHole()
                    continue
                if not block:
                    break
                yield at, images.anonymous(block) if at == 0 else block
                at += len(block)
            stream.finish()
        yield at, b""

    def _missing(self, name: str) -> MachineError:
        return MachineError(
            f"the file {name} is missing",
            details=[self.path(name)],
            hint=(Remedy("snapshots"), " lists the others"),
        )
