"""What a build needs of this machine, and whose the files are that it leaves."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from lab import process
from lab.boxes import gomodules
from lab.boxes.chroot import need_root
from lab.errors import HostError, Remedy
from lab.files import make_private
from lab.store import Home

# Measured: caches 3 GiB, the file system 2.5, raw disk, qcow2 and box file 2.5 each.
SPACE_GIB = 14
PROGRAMS = (
    "mmdebstrap", "gcc", "tar", "sfdisk", "grub-mkimage", "qemu-img", "unshare",
    "setpriv", "chroot", "mount", "apt-get",
)  # fmt: skip
PACKING = ("mmdebstrap", "apt-get")


def check_host(home: Home, gib: int = SPACE_GIB, *, compiles: bool = True) -> None:
    """Find out in the first second what would fail in the tenth minute; `gib` of disk have to be free.

    `compiles`: the build is more than packing Debian packages.

    Raises:
        RootNeeded: not root.
        HostError: a program is missing, or too little disk is free.
    """
    need_root()
    if compiles:
        gomodules.need_go()
    for program in PROGRAMS if compiles else PACKING:
        process.find(program)
    if platform.machine() != "x86_64":
        raise HostError(
            "boxes are built on x86-64 machines only",
            details=[f"this is {platform.machine()}"],
            hint="build it on an x86-64 machine",
        )
    make_home(home.root)
    free = shutil.disk_usage(home.root).free / (1 << 30)
    if free < gib:
        raise HostError(
            f"a build needs {gib} GiB of free disk, {home.root} has {free:.1f}",
            hint=(Remedy("box prune"), ", or set KLAB_HOME to a folder on a larger disk"),
        )


def make_home(root: Path) -> None:
    """Make klab's folder, owned by the owner of its parent folder: under sudo that is the person."""
    missing = [each for each in (root, *root.parents) if not each.exists()]
    make_private(root)
    for each in reversed(missing):
        above = each.parent.stat()
        os.chown(each, above.st_uid, above.st_gid)


@contextlib.contextmanager
def given_back(home: Home) -> Iterator[None]:
    """Give what root makes of boxes and images to the owner of klab's folder, who makes labs of them without root."""
    try:
        yield
    finally:
        if os.geteuid() == 0:
            owner = home.root.stat()
            for folder, folders, files in (*os.walk(home.cache), *os.walk(home.boxes), *os.walk(home.images)):
                for path in (folder, *(f"{folder}/{name}" for name in (*folders, *files))):
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
                # Go makes its folders read-only; their owner could not delete them.
                Path(folder).chmod(Path(folder).stat().st_mode | stat.S_IWUSR)
