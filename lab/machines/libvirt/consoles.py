"""The files that the serial consoles of a lab's machines write to.

They lie in a folder of the lab's storage pool; the lab's log folder has a link to each. libvirt makes that folder and
gives it to the person; virtlogd, which is root, writes the files. In a home it might not (NFS with root_squash, sshfs,
an encrypted home), and would leave files of root's there:

    POOL/consoles/console-cp1.log      the person's, empty before each start; virtlogd appends to it
    POOL/consoles/console-cp1.log.0    what was printed before, once that file was full: virtlogd renames it and
                                       makes another, which is root's (2 MiB, virtlogd.conf: max_size, max_backups)
    logs/console-cp1.log -> POOL/consoles/console-cp1.log

Without `append='on'` virtlogd deletes the file at each start and makes one that only root may read.
Source: libvirt 11.3, src/util/virrotatingfile.c, src/logging/log_handler.c.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import MachineError
from lab.host import access
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import find_volume, translate_errors
from lab.plan.names import console_file

if TYPE_CHECKING:
    import libvirt

FOLDER = "consoles"


@dataclass(frozen=True, slots=True)
class ConsoleFiles:
    """The console files of one lab.

    Args:
        pool: the lab's storage pool.
        folder: their folder, as libvirt sees it.
        outside: the same folder as seen from outside the private libvirt.
        logs: the lab's log folder.
    """

    pool: libvirt.virStoragePool
    folder: Path
    outside: Path
    logs: Path

    def path(self, node: str) -> Path:
        """The file that a node's console writes to, as libvirt sees it."""
        return self.folder / console_file(node)

    def ensure(self) -> None:
        """Make the folder where it is missing; it belongs to the person who runs klab.

        Raises:
            MachineError, HostError: libvirt does not make it.
        """
        with translate_errors("the folder of the consoles cannot be made"):
            if find_volume(self.pool, FOLDER) is None:
                self.pool.createXML(definitions.folder_volume(FOLDER, os.geteuid(), os.getegid()))

    def renew(self, node: str) -> None:
        """Begin a node's console afresh, while its machine is off: an empty file, and nothing of earlier starts.

        Raises:
            MachineError: klab may not write there.
        """
        link, file = self.logs / console_file(node), self.path(node)
        try:
            self._delete(node)
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self.logs.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.outside / file.name)
        except OSError as error:
            raise _refused(f"the console of {node} cannot be written to a file", error) from error

    def remove(self, node: str) -> None:
        """Delete a node's console.

        Raises:
            MachineError: klab may not.
        """
        try:
            self._delete(node)
        except OSError as error:
            raise _refused(f"the console of {node} cannot be deleted", error) from error

    def _delete(self, node: str) -> None:
        (self.logs / console_file(node)).unlink(missing_ok=True)
        # virtlogd's files, too: who owns a folder may delete anyone's in it.
        for file in self.folder.glob(f"{console_file(node)}*"):
            file.unlink(missing_ok=True)


def empty(pool_folder: Path) -> None:
    """Delete every console of a pool that is about to go: libvirt deletes an empty folder only.

    Raises:
        MachineError: klab may not.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            for file in list((pool_folder / FOLDER).iterdir()):
                file.unlink(missing_ok=True)
    except OSError as error:
        raise _refused("the lab's consoles cannot be deleted", error) from error


def _refused(what: str, error: OSError) -> MachineError:
    closed = access.closing_folder(Path(str(error.filename)))
    return MachineError(
        what,
        details=[f"{error.strerror}: {error.filename}"],
        hint=f"sudo chmod o+x {closed} lets this user through"
        if closed is not None and closed.name != FOLDER
        else f"namei -l {error.filename} shows whose it is: run klab as the user who made the lab",
    )
