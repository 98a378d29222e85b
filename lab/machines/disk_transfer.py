"""What klab asks of a provider whose machines' disks can leave the host, and come from another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Incoming:
    """A disk that comes from another machine.

    `write` writes to the file of that name what `DiskTransfer.export` wrote; `host_key` is as `DiskTransfer.host_key`.
    """

    host_key: str
    write: Callable[[Path], None]


class DiskTransfer(Protocol):
    """The disks of one lab's machines, on their way to another host or from one.

    Every method may be called again after a kill at any moment.
    """

    def export(self, node: str, box: Path, target: Path, key: str | None = None) -> None:
        """Write to a new file what distinguishes a node's disk from its box's; nothing of the lab is changed.

        Args:
            node: the node's name.
            box: klab's own copy of the box's disk.
            target: the file; `target` with more after its name may be used beside it, and is gone afterwards.
            key: the capture that holds the disk; the disk as it is now of a machine that is off when left out.

        Raises:
            NotFound: there is no capture of that key.
            MachineError: the machine is not off, or the disk cannot be read or written.
        """
        ...

    def host_key(self, node: str, key: str | None = None) -> str:
        """The lines of known_hosts (sshd(8)) by which ssh knows a disk, without the name that they begin with.

        Arguments and errors as `export`.
        """
        ...

    def size_estimate(self, node: str, key: str | None = None) -> int:
        """How many bytes `target` may take after `export`, about, at most; arguments and errors as there.

        Meanwhile what `export` has beside it may take as much again.
        """
        ...

    def import_disks(self, disks: Mapping[str, Incoming], on_made: Callable[[str], None]) -> None:
        """Make the machines of these nodes, off, with disks that come from elsewhere; one that exists is left as it is.

        A machine exists only with its whole disk, so that the same call continues after a kill.

        Args:
            disks: by node what its machine is to have.
            on_made: called with each node whose machine is there.

        Raises:
            Conflict, HostError: as `Machines.check_new`, and as `Machines.up`.
            MachineError: klab did not write a disk in that form, or a machine cannot be made.
        """
        ...
