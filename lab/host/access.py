"""Who may not do what on this machine, by its cause: who may use libvirt is one matter, who may use a file another."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from lab import process
from lab.errors import HostError, LabError

GROUP = "libvirt"
JOIN = "sudo usermod -aG libvirt $USER, then log out and in again"
_LOG_SECONDS = 5.0
# The file in words of libvirt's, virtlogd's and QEMU's: Could not open '/a/b': Permission denied; Cannot access storage
# file '/a/b' (as uid:64055, gid:64055): Permission denied; Unable to open file: /a/b: Permission denied.
_QUOTED = re.compile(r"'(/[^'\n]{1,1024})'")
_BARE = re.compile(r" (/[^\s':]{1,1024}): Permission denied")
# Of these root may be nobody, or another user than their owner may not enter at all (fuse(4), "allow_other").
_FOREIGN = ("nfs", "cifs", "smb", "fuse", "ecryptfs", "9p", "afs")


def refused_by_libvirt(text: str) -> HostError:
    """The error for a user whom libvirtd refuses; `text` is what was seen."""
    return HostError("libvirt does not let this user in", details=[text], hint=group_hint())


def group_hint() -> str:
    """What lets this user in: by whether the account, and this login, are in libvirt's group."""
    try:
        group = grp.getgrnam(GROUP)
    except KeyError:
        return f"this machine has no group {GROUP}: sudo apt-get install libvirt-daemon-system makes it; then {JOIN}"
    if group.gr_gid in {os.getegid(), *os.getgroups()}:
        return (
            f"this login is in the group {GROUP}, so polkit or libvirtd.conf refuses: "
            "sudo journalctl -n 30 -u polkit -u libvirtd shows why"
        )
    if _account_is_in(group):
        return f"this account is in the group {GROUP}, but this login is older: log in again, or run newgrp {GROUP}"
    return JOIN


def _account_is_in(group: grp.struct_group) -> bool:
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return group.gr_gid in os.getgrouplist(account.pw_name, account.pw_gid)


def silent_virtlogd(text: str) -> HostError | None:
    """The error for a libvirtd that does not reach virtlogd, without which it starts no machine; None for others."""
    if "virtlogd-sock" not in text:
        return None
    return HostError("virtlogd does not answer", details=[text], hint="sudo systemctl restart virtlogd.socket virtlogd")


def closed_file(what: str, text: str) -> HostError:
    """The error for a file that libvirt, virtlogd or QEMU may not use.

    Args:
        what: what was being done, for the message.
        text: what they said.
    """
    found = _QUOTED.search(text) or _BARE.search(text)
    if found is None:
        return HostError(what, details=[text], hint="sudo journalctl -n 30 -u libvirtd -u virtlogd shows more")
    file = Path(found[1])
    kind = filesystem(file)
    if is_foreign(kind):
        why = f"{file} is on a file system of type {kind}, where root and libvirt's QEMU user may be nobody"
        return HostError(what, details=[text, why], hint="set KLAB_HOME, or the storage pool, to a local folder")
    folder = closing_folder(file)
    if folder is not None:
        why = f"libvirt's QEMU user may not enter {folder} ({stat.filemode(folder.stat().st_mode)})"
        return HostError(
            what, details=[text, why], hint=f"chmod o+x {folder} lets it through; or use a folder that is open to all"
        )
    denied = list(_denials())
    hint = f"namei -l {file} shows who may; sudo dmesg | grep DENIED shows what AppArmor has refused"
    if denied:
        hint = "AppArmor refuses: keep klab's folders and the storage pool where Debian's profile lets libvirt go"
    return HostError(what, details=[text, *denied], hint=hint)


def closing_folder(file: Path) -> Path | None:
    """The first folder on the way to a file that others than its owner and group may not enter; None where all may."""
    for folder in reversed(file.parents):
        try:
            mode = folder.stat().st_mode
        except OSError:
            return None
        if not mode & stat.S_IXOTH:
            return folder
    return None


def filesystem(path: Path) -> str:
    """The type of the file system that a path is on, as in fstab(5): ext4, nfs4, fuse.sshfs; empty where unknown."""
    best, kind = -1, ""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in mounts:
        _, point, found, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found
    return kind


def is_foreign(kind: str) -> bool:
    """Whether root may be nobody on file systems of that type: a network's, or a user's own."""
    return kind.startswith(_FOREIGN)


def _denials() -> Iterator[str]:
    """What AppArmor has refused in the last minutes, as far as this user may read the kernel's log."""
    words = ["journalctl", "-k", "-q", "--since=-5min", "--grep=apparmor=.DENIED", "--output=cat", "-n", "3"]
    try:
        yield from process.run(words, timeout=_LOG_SECONDS, check=False).stdout.splitlines()
    except LabError:
        return
