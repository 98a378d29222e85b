"""Masters of linked clones: the machine that Vagrant makes of each box, and whose disk its clones lie on.

Vagrant remembers it in the box's folder alone and never removes it (Vagrant 2.3.4,
plugins/providers/virtualbox/action/import_master.rb): without that folder some 2.5 GiB belong to nobody.
"""

from __future__ import annotations

import re
from pathlib import Path

from lab import process
from lab.errors import HostError, ProgramError
from lab.machines.virtualbox.manage import manage
from lab.machines.virtualbox.output import parse_disks, parse_info, parse_medium

_FILE = "master_id"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def remove(entry: Path) -> bool:
    """Remove the master of a box, with its disk; one that clones lie on, of whoever's lab, stays.

    Args:
        entry: Vagrant's folder of the box.

    Returns:
        Whether there is none any more. Without VirtualBox there is none.

    Raises:
        HostError: it cannot be removed.
    """
    for file in sorted(entry.rglob(_FILE)):
        identity = file.read_text(encoding="utf-8", errors="replace").strip()
        if not (_UUID.fullmatch(identity) and process.have("VBoxManage")):
            continue
        told = manage("showvminfo", identity, "--machinereadable", check=False)
        if told.code == 0 and not _unregister(identity, parse_info(told.stdout)):
            return False
        file.unlink()
    return True


def _unregister(identity: str, info: dict[str, str]) -> bool:
    try:
        if any(_clones(disk) for disk in parse_disks(info).values()):
            return False
        manage("unregistervm", identity, "--delete")
    except ProgramError as error:
        raise HostError(
            f"the box's machine {info.get('name', identity)!r} cannot be removed from VirtualBox",
            details=error.details,
            hint=f"VBoxManage unregistervm {identity} --delete shows why",
        ) from error
    return True


def _clones(disk: str) -> int:
    """How many disks of other machines lie on one: its snapshot has a disk of the master's own above it."""
    medium = parse_medium(manage("showmediuminfo", "disk", disk).stdout)
    if medium.parent:
        return len(parse_medium(manage("showmediuminfo", "disk", medium.parent).stdout).children) - 1
    return len(medium.children)
