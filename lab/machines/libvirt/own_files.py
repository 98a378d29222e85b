"""Files in a lab's storage pool that the person who runs klab may read and write, whoever owns them at the moment.

libvirt gives the disks of a machine that runs to QEMU's user, and what it makes by itself to root, all of it for the
owner alone. A person's klab therefore makes each file first, empty, with an entry for the person in its access
control list: libvirt takes an empty file as if there were none, changes the owner and leaves mode and list alone.

Source: libvirt, src/qemu/qemu_domain.c (virQEMUFileOpenAs), src/qemu/qemu_snapshot.c (qemuSnapshotPrepareDiskExternal),
src/security/security_dac.c; acl(5); Linux, include/uapi/linux/posix_acl_xattr.h.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
_ENTRY = struct.Struct("<HHI")
_NOBODY = 0xFFFFFFFF
# Tags: owner, a user, owning group, the most that users and groups get, others.
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
_READ_WRITE = 6


def make(file: Path) -> None:
    """Make an empty file that stays this person's to read and write.

    Raises:
        OSError: there is one already, or klab may not make any there.
    """
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    keep(file)


def keep(file: Path) -> None:
    """Let a file of this person's be theirs to read and write whoever gets it.

    On a file system without access control lists it stays the owner's alone; it is read through libvirt then.
    """
    user = os.geteuid()
    if user != 0:  # root may anyway
        with contextlib.suppress(OSError):
            os.setxattr(file, _ATTRIBUTE, access_list(user))


def access_list(user: int) -> bytes:
    """The list that lets the owner and one user read and write, and nobody else do anything."""
    entries = (
        (_OWNER, _READ_WRITE, _NOBODY),
        (_USER, _READ_WRITE, user),
        (_GROUP, 0, _NOBODY),
        (_MASK, _READ_WRITE, _NOBODY),
        (_OTHERS, 0, _NOBODY),
    )
    return struct.pack("<I", _VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def readable(file: Path) -> bool:
    """Whether klab itself may read a file."""
    return os.access(file, os.R_OK)
