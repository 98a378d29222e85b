"""Disks that klab may read: what Vagrant makes is root's alone, so each machine moves on to a file of klab's.

The machine runs on meanwhile: it gets a layer of klab's to write to, its emulator copies into that what the first one
held, and the first one is deleted. Done right after the machine was made, that is little.

Source: libvirt.org, virDomainSnapshotCreateXML (DISK_ONLY), virDomainBlockRebase.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import MachineError
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import library, translate_errors
from lab.machines.libvirt.domains import JOB_POLL_SECONDS
from lab.machines.libvirt.volumes import LayerStore
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt

COPY_SECONDS = 600.0


def adopt(store: LayerStore, domain: libvirt.virDomain, layer: str) -> None:
    """Move a running machine that no capture holds to a disk layer of klab's. Idempotent; a killed one continues.

    Args:
        store: the lab's files.
        domain: the machine.
        layer: a name for the layer, which no other has had.

    Raises:
        MachineError: libvirt refuses, or the copy does not end.
    """
    library_ = library()
    with translate_errors(f"the disk of {domain.name()} cannot be taken over from Vagrant"):
        xml = domain.XMLDesc()
        disk, chain = definitions.disk(xml), definitions.live_chain(xml)
        layers = [Path(path).name for path in chain[:-1]]  # the last is the box
        strange = [name for name in layers if not store.readable(name)]
        if disk is None or not strange:
            return
        if strange[0] == layers[0]:
            store.reserve(layer)
            flags = (
                library_.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
                | library_.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
                | library_.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            )
            domain.snapshotCreateXML(definitions.capture(disk, store.path(layer), None), flags)
        if not domain.blockJobInfo(disk.device):  # else a klab that was killed has begun it
            domain.blockRebase(disk.device, chain[-1])
        poll(lambda: not domain.blockJobInfo(disk.device), Deadline.after(COPY_SECONDS), every=JOB_POLL_SECONDS)
        left = definitions.live_chain(domain.XMLDesc())
        definition = domain.XMLDesc(library_.VIR_DOMAIN_XML_INACTIVE | library_.VIR_DOMAIN_XML_SECURE)
        changed = definitions.disk(definition)
        if left and (changed is None or changed.path != left[0]):
            store.define(definitions.with_disk(definition, left[0]))
    if len(left) != 2:  # the layer and the box
        raise MachineError(
            f"the disk of {domain.name()} was not taken over from Vagrant",
            details=left,
            hint="run the same command again to continue",
        )
    store.refresh()
    store.remove(layers if strange[0] == layers[0] else layers[1:])
