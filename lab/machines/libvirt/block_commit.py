"""Disk layers that become one, by an emulator that has them open: klab itself needs no right to the files.

A machine that runs has its layers open already. For others libvirt starts a machine that never runs: paused, with
the disk and nothing else, and ended by libvirtd itself as soon as klab's connection is closed.

Source: libvirt.org/html/libvirt-libvirt-domain.html (virDomainBlockCommit, VIR_DOMAIN_START_AUTODESTROY).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lab.disks import images
from lab.errors import MachineError
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import ignore_missing, library, translate_errors
from lab.machines.libvirt.domains import JOB_POLL_SECONDS
from lab.machines.ownership import Owner
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt


def commit(domain: libvirt.virDomain, into: str, top: str) -> None:
    """Let the emulator of a machine that is on merge layers of its disk.

    What lies on `top` lies on `into` afterwards; where the machine writes to `top`, it then writes to `into`.

    Args:
        domain: the machine.
        into: path of the layer that takes up the content of those above it, up to `top`.
        top: path of the uppermost of them.

    Raises:
        MachineError: it does not come to an end.
    """
    library_, name = library(), domain.name()
    disk = definitions.disk(domain.XMLDesc())
    device, active = ("", False) if disk is None else (disk.device, disk.path == top)
    with translate_errors(f"the disk layers of {name} cannot be merged"):
        if not domain.blockJobInfo(device):  # else an earlier klab has begun it
            flags = library_.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if active else 0
            domain.blockCommit(device, into, None if active else top, 0, flags)

        def done() -> bool:
            told = domain.blockJobInfo(device)
            if active and told and told["cur"] == told["end"]:
                try:
                    domain.blockJobAbort(device, library_.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                except library_.libvirtError as error:
                    if error.get_error_code() not in {
                        library_.VIR_ERR_BLOCK_COPY_ACTIVE,
                        library_.VIR_ERR_OPERATION_INVALID,
                    }:
                        raise
            return not told

        poll(done, Deadline.after(images.MERGE_SECONDS), every=JOB_POLL_SECONDS)
        if top in definitions.live_chain(domain.XMLDesc()):
            raise MachineError(
                f"the disk layers of {name} could not be merged",
                details=[f"{top} into {into}"],
                hint="the next command on the lab tries it again",
            )


@contextlib.contextmanager
def opened(connection: libvirt.virConnect, owner: Owner, disk: str) -> Iterator[libvirt.virDomain]:
    """A machine that never runs and has a disk open that no other machine has.

    Args:
        connection: to where the disk is.
        owner: the lab's mark; each lab has one such machine at a time.
        disk: path of the uppermost layer.
    """
    library_ = library()
    flags = library_.VIR_DOMAIN_START_PAUSED | library_.VIR_DOMAIN_START_AUTODESTROY
    with translate_errors(f"the disk layer {disk} cannot be opened"):
        _end(connection, owner)  # one of a libvirtd that was killed: no one has ended it
        domain = connection.createXML(definitions.disk_opener(owner, disk), flags)
    try:
        yield domain
    finally:
        with translate_errors(f"the disk layer {disk} cannot be closed"):
            ignore_missing(domain.destroy)


def _end(connection: libvirt.virConnect, owner: Owner) -> None:
    for domain in connection.listAllDomains(library().VIR_CONNECT_LIST_DOMAINS_TRANSIENT):
        if domain.UUIDString() == owner.opener_uuid:
            ignore_missing(domain.destroy)
