"""Storage that somebody is at work on: libvirt refuses to read a pool again, or to delete a volume of it, meanwhile.

Source: libvirt, src/storage/storage_driver.c (storagePoolRefresh, storageVolDelete and others: asyncjobs, in_use).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lab.errors import MachineError
from lab.machines.libvirt.connection import library
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt

# A disk of many GB that another program allocates or copies; klab's own transfers are shorter.
PATIENCE_SECONDS = 300.0
LOOK_SECONDS = 0.2


def is_busy(error: libvirt.libvirtError) -> bool:
    """Whether libvirt refuses because of a transfer. Its words are in the language of its daemon, so the codes tell."""
    library_ = library()
    refused = {library_.VIR_ERR_INTERNAL_ERROR, library_.VIR_ERR_OPERATION_INVALID}
    return error.get_error_domain() == library_.VIR_FROM_STORAGE and error.get_error_code() in refused


def when_idle(pool: libvirt.virStoragePool, step: Callable[[], object]) -> None:
    """Do something with a pool or a volume of it, as soon as nobody is at work on it.

    Raises:
        MachineError: somebody still is when time is up.
        libvirt.libvirtError: it fails for another reason.
    """
    library_ = library()
    refusal: list[str] = []

    def done() -> bool:
        try:
            step()
        except library_.libvirtError as error:
            if not is_busy(error) or not pool.isActive():
                raise
            refusal[:] = [str(error)]
            return False
        return True

    if not poll(done, Deadline.after(PATIENCE_SECONDS), every=LOOK_SECONDS):
        raise MachineError(
            f"the storage pool {pool.name()} has been busy for {PATIENCE_SECONDS / 60:.0f} minutes",
            details=refusal,
            hint="another program, such as virt-manager, copies or allocates a disk there: "
            "wait for it, then run the same command again",
        )
