"""The user whose processes are libvirt's QEMUs, and the folders that this user may not walk through."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.machines.libvirt import definitions

if TYPE_CHECKING:
    import libvirt

ACCESS_LIST = "system.posix_acl_access"  # acl(5), as an extended attribute


@dataclass(frozen=True, slots=True)
class QemuUser:
    """Whom libvirt starts QEMU as."""

    name: str
    uid: int
    gids: Collection[int]

    def closed(self, folder: Path) -> Path | None:
        """The first folder on the way into a folder that this user may not walk through; None where there is none.

        One with an access list, and what klab itself may not look at, counts as open.
        """
        for each in (*reversed(folder.parents), folder):
            try:
                found = each.stat()
                listed = ACCESS_LIST in os.listxattr(each)
            except OSError:
                return None
            if not listed and not found.st_mode & self._bit(found):
                return each
        return None

    def _bit(self, found: os.stat_result) -> int:
        if found.st_uid == self.uid:
            return stat.S_IXUSR
        return stat.S_IXGRP if found.st_gid in self.gids else stat.S_IXOTH


def qemu_user(connection: libvirt.virConnect) -> QemuUser | None:
    """The user of a libvirt's QEMUs; None where they are root's, or libvirt does not tell."""
    owner = definitions.emulator_owner(connection.getCapabilities())
    if owner is None or owner[0] == 0:
        return None
    uid, gid = owner
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return QemuUser(f"user {uid}", uid, {gid})
    return QemuUser(name, uid, {gid, *(group.gr_gid for group in grp.getgrall() if name in group.gr_mem)})
