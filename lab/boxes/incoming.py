"""Boxes that come from elsewhere, with a bundle or copied from another store.

Such a box gives the store its disk and nothing else. A box's digest is its disk's, so nothing would vouch for a
program that comes beside it, and no program from a foreign file runs on this host.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab.boxes.cache import PARTIAL, Cache
from lab.boxes.manifest import DISK, LIBVIRT, Box, BoxFile, MadeFrom, describe_file, read_box, write_manifest
from lab.boxes.store import check_box, folder_of
from lab.boxes.vagrant import write_libvirt_box
from lab.disks.qcow2 import strangeness
from lab.errors import BoxError
from lab.files import make_private
from lab.store import Home

# What goes to another store; what else there is of a box is made from it, or stays where it was built.
PORTABLE = (DISK,)


def put(home: Home, box: Box, fetch: Callable[[str, Path], None], tell: Callable[[str], None] | None = None) -> Box:
    """Put a box that comes from elsewhere into the store, unless it is there.

    It appears there when its disk has been found to match the digest, and a plain qcow2 image. The box file for
    Vagrant is made here: it is the disk in another wrapping.

    Args:
        home: klab's folder.
        box: what is known of it, with its `origin`; its folder and `created` do not matter.
        fetch: writes the file of that name to that path.
        tell: told which klab builds or puts a box, which is then waited for; without it nobody waits.

    Raises:
        BoxError: the disk does not match its digest, or refers to other files.
        Conflict: another klab builds or puts a box, and nobody waits.
    """
    with Cache(home.cache).lock(tell):
        return put_locked(home, box, fetch)


def put_locked(home: Home, box: Box, fetch: Callable[[str, Path], None]) -> Box:
    """As `put`, for who holds the lock of boxes and cache."""
    place = folder_of(home, box.name, box.digest)
    if (there := _whole(place, box.digest)) is not None:
        return there
    make_private(home.boxes)
    partial = place.with_name(place.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        disk = _fetched(fetch, partial / DISK, box)
        write_libvirt_box(partial / DISK, partial / LIBVIRT, box.virtual_mib)
        files = {DISK: disk, LIBVIRT: describe_file(partial / LIBVIRT)}
        made = replace(box, folder=place, files=files, created=time.time())
        write_manifest(replace(made, folder=partial))
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def trust(home: Home, box: Box, made_from: MadeFrom | None = None) -> Box:
    """Let a box that came with a bundle serve every lab, as one that was built here.

    Args:
        home: klab's folder.
        box: the box.
        made_from: what it was made from, as its lock says; None leaves that as it is.

    Raises:
        Conflict: another klab builds or puts a box.
    """
    with Cache(home.cache).lock():
        found = read_box(box.folder)
        trusted = replace(found, origin="", made_from=made_from or found.made_from)
        write_manifest(trusted)
    return trusted


def _whole(place: Path, digest: str) -> Box | None:
    """The box in a folder, if it has that digest and its files are unchanged."""
    try:
        found = check_box(read_box(place))
    except BoxError:
        return None
    return found if found.digest == digest else None


def _fetched(fetch: Callable[[str, Path], None], target: Path, box: Box) -> BoxFile:
    fetch(DISK, target)
    target.chmod(0o644)
    found = describe_file(target)
    if found.sha256 != box.digest:
        raise _refused(box, f"{DISK}: SHA-256 is {found.sha256}, not {box.digest}")
    if why := strangeness(target):
        raise _refused(box, f"{DISK}: {why}")
    return found


def _refused(box: Box, why: str) -> BoxError:
    return BoxError(
        f"the box {box.name} from {box.origin} is damaged, or klab did not build it",
        details=[why],
        hint="get it again, from a person you trust",
    )
