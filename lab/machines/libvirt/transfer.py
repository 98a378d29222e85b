"""Files into libvirt's storage, through its API: QEMU's user cannot walk into a person's home."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lab.files import make_private
from lab.locks import locked
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import find_volume, library, translate_errors
from lab.machines.libvirt.storage_jobs import when_idle
from lab.store import Home

if TYPE_CHECKING:
    import libvirt

BLOCK = 1 << 20
TRANSFER_SECONDS = 1800.0  # a box of some GB goes through libvirtd, to a disk of any speed


def ensure_base(home: Home, pool: libvirt.virStoragePool, name: str, image: Path, *, folder: Path | None) -> None:
    """Make a box's disk a volume, once for all labs; the volume of a killed transfer is made again.

    Args:
        home: klab's home; one klab at a time transfers.
        pool: where it goes.
        name: the volume's name, as vagrant-libvirt looks for it.
        image: the disk.
        folder: the pool's folder as it lies beside the image, where it is klab's own: then a hard link does.

    Raises:
        HostError: another klab has been at it for half an hour.
    """
    make_private(home.root)
    transfer = locked(home.root / ".base.lock", f"the transfer of the box {name}", patience=TRANSFER_SECONDS)
    with transfer, translate_errors(f"the box cannot be put into the pool {pool.name()}"):
        volume = find_volume(pool, name)
        if volume is not None and _physical(volume) == image.stat().st_size:
            return
        if volume is not None:
            when_idle(pool, volume.delete)
        if folder is not None and _linked(image, folder / name):
            when_idle(pool, pool.refresh)
        else:
            # A box is no secret; to read a disk klab has to read the box below it.
            upload(pool, name, image, mode="0644")


def upload(pool: libvirt.virStoragePool, name: str, file: Path, *, mode: str = "0600") -> None:
    """Copy a file into a pool under that name; what was there is replaced."""
    with translate_errors(f"{file.name} cannot be copied into the pool {pool.name()}"):
        old = find_volume(pool, name)
        if old is not None:
            when_idle(pool, old.delete)
        size = file.stat().st_size
        volume = pool.createXML(definitions.raw_volume(name, mode=mode))
        stream = pool.connect().newStream()
        volume.upload(stream, 0, size)
        with file.open("rb") as source:
            stream.sendAll(lambda _stream, count, handle: handle.read(min(count, BLOCK)), source)
        stream.finish()


def _physical(volume: libvirt.virStorageVol) -> int:
    """The size of the volume's file, in bytes: less than the source's while a transfer runs, or after a kill."""
    return int(volume.infoFlags(library().VIR_STORAGE_VOL_GET_PHYSICAL)[2])


def _linked(image: Path, target: Path) -> bool:
    try:
        target.unlink(missing_ok=True)
        os.link(image, target)
    except OSError:  # another file system
        return False
    return True
