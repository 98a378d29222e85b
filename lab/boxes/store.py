"""Boxes on disk: finding and checking them.

A box is addressed by its disk: `digest` is the SHA-256 of disk.qcow2. A rebuild that
changes nothing lands in the same folder; one that does is beside the older, and labs
made from the older keep it.

A box that came with a bundle carries an `origin`. It holds a disk alone, no program, and serves the labs of that
bundle only, until the same box is built here or a person trusts it; see `lab.boxes.incoming`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab import locks
from lab.boxes import upgrade
from lab.boxes.cache import PARTIAL, digest_file
from lab.boxes.disk import write_vmdk
from lab.boxes.manifest import (
    DISK,
    MANIFEST,
    SHORT,
    UPGRADE,
    VMDK,
    Box,
    build_command,
    describe_file,
    read_box,
    title,
    write_manifest,
)
from lab.boxes.vagrant import write_virtualbox_box
from lab.disks import vmdk
from lab.errors import BoxError, Remedy
from lab.machines.features import BoxFormat
from lab.machines.providers import provider_named
from lab.machines.vagrant.vagrant_home import sized_box
from lab.store import Home

# Seconds to wait for another klab that makes a file of a box: a VMDK takes a minute, on a slow disk several.
_PATIENCE = 1800.0


def find_box(home: Home, box_name: str, kubernetes: str) -> Box:
    """The newest box of that recipe and Kubernetes version that was built, or is trusted, here.

    Args:
        home: klab's folder.
        box_name: the recipe's name, as a scenario has it: debian-13.
        kubernetes: a full version: 1.35.4; empty for a cloud image.

    Raises:
        BoxError: there is none yet.
    """
    found = [box for box in list_boxes(home) if (box.recipe, box.kubernetes) == (box_name, kubernetes)]
    for box in found:
        if not box.origin:
            return box
    raise BoxError(
        f"the box {title(box_name, kubernetes)} has not been built here",
        details=[f"{box.name} ({box.short}) came with {box.origin} and is not trusted for other labs" for box in found]
        + [error.message for error in damaged_boxes(home)],
        hint=(
            build_command(box_name, kubernetes),
            *(() if kubernetes else ("; ", Remedy("box build", options=(box_name,)), " says where FILE is published")),
            *((", or ", Remedy("box trust", options=(found[0].short,)), " if you trust its author") if found else ()),
        ),
    )


def box_of(home: Home, folder: str) -> Box | None:
    """The box in that folder of the store, as a lab's record names it; None where it is gone or damaged.

    Args:
        home: klab's folder.
        folder: NAME@DIGEST.
    """
    return next((box for box in list_boxes(home) if box.folder.name == folder), None)


def list_boxes(home: Home) -> list[Box]:
    """Every box whose manifest can be read, newest first; `damaged_boxes` has the others."""
    found = [box for box in _read_all(home) if isinstance(box, Box)]
    return sorted(found, key=lambda box: (-box.created, box.name))


def damaged_boxes(home: Home) -> list[BoxError]:
    """Why boxes cannot be read, one error for each."""
    return [error for error in _read_all(home) if isinstance(error, BoxError)]


def _read_all(home: Home) -> Iterator[Box | BoxError]:
    if not home.boxes.is_dir():
        return
    for file in sorted(home.boxes.glob(f"*/{MANIFEST}")):
        if not is_partial(file.parent):
            try:
                yield read_box(file.parent)
            except BoxError as error:
                yield error


def check_box(box: Box) -> Box:
    """The quick check before a lab is made: each file is there, with the size and date it was left with.

    A file of another date is read: a box that was copied, restored or moved is the same box. Its manifest gets the
    new dates, so that it is read once.

    Returns:
        The box, with the dates that its files have now.

    Raises:
        BoxError: a file is missing or has other bytes; `details` names each.
    """
    problems, files = [], dict(box.files)
    for name, expected in sorted(box.files.items()):
        path = box.folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
            continue
        stat = path.stat()
        if stat.st_size != expected.size:
            problems.append(f"{name}: {stat.st_size} bytes instead of {expected.size}")
        elif stat.st_mtime_ns != expected.mtime_ns:
            files[name] = replace(expected, mtime_ns=stat.st_mtime_ns)
            problems += _other_bytes(box, name)
    _raise(box, problems)
    if files == box.files:
        return box
    moved = replace(box, files=files)
    with contextlib.suppress(OSError):  # a store that this person cannot write to: the files are read each time
        write_manifest(moved)
    return moved


def _other_bytes(box: Box, name: str) -> list[str]:
    found, expected = digest_file(box.folder / name), box.files[name].sha256
    return [] if found == expected else [f"{name}: SHA-256 is {found}, not {expected}"]


def ensure_vmdk(home: Home, box: Box) -> Box:
    """The box with its VMDK, made from the disk where it does not exist yet (some 40 seconds).

    Raises:
        ProgramError: qemu-img failed.
        HostError: another klab makes it, and does not end.
    """
    with _alone_with(home, box):
        return _with_vmdk(read_box(box.folder))


def _with_vmdk(box: Box) -> Box:
    return _ensure(box, VMDK, lambda target: write_vmdk(box.disk, target))


@contextlib.contextmanager
def _alone_with(home: Home, box: Box) -> Iterator[None]:
    """Hold a box while something is made from it; a build, which makes another box, may run meanwhile.

    Raises:
        HostError: another klab has held it all the time.
    """
    home.cache.mkdir(parents=True, exist_ok=True)
    with locks.locked(home.cache / f".{box.folder.name}.lock", f"the box {box.name}", patience=_PATIENCE):
        yield


def upgrade_file(home: Home, box: Box, images: Collection[str]) -> Path:
    """The file that makes running nodes those of a box's version, checked; made when it is first asked for.

    Args:
        home: klab's folder.
        box: a built box.
        images: the references of Kubernetes' images in it, and of its pod network's.

    Raises:
        BoxError: the box is damaged, or lacks an image.
        HostError, ProgramError: the disk cannot be read; another klab makes the file, and does not end.
    """
    check_box(box)
    with _alone_with(home, box):
        box = _ensure(read_box(box.folder), UPGRADE, lambda target: upgrade.write(box.disk, images, target))
    return box.folder / UPGRADE


def vagrant_box(home: Home, box: Box, provider: str, disks: Collection[int]) -> Path:
    """The file that `vagrant box add` takes, checked; VirtualBox's are made when first asked for.

    A linked clone on VirtualBox has a disk as large as its box's: there is a file for each size, side by side.

    Args:
        home: klab's folder.
        box: a built box.
        provider: the name of the provider that is to make machines from it.
        disks: how large the machines' disks are, in GiB.

    Returns:
        The file; for VirtualBox the one of the smallest disk.

    Raises:
        LabError: the provider is unknown.
        BoxError: the box is damaged, or has a larger disk.
        ProgramError: the VMDK cannot be made.
        HostError: another klab makes it, and does not end.
    """
    box = check_box(box)
    if provider_named(provider).features.box_format == BoxFormat.LIBVIRT:
        return box.vagrant_box
    if (least := min(disks)) << 10 < box.virtual_mib:
        raise BoxError(
            f"the box {box.name} needs a disk of {-(-box.virtual_mib // 1024)} GiB",
            details=[f"a node has one of {least} GiB"],
            hint="give the scenario a larger `disk`",
        )
    with _alone_with(home, box):
        box = _with_vmdk(read_box(box.folder))
        for disk in sorted(set(disks)):
            box = _ensure(box, sized_box(disk), partial(_write_sized, box, disk))
    return box.folder / sized_box(least)


def _write_sized(box: Box, disk: int, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=box.folder, prefix=f"{VMDK}{PARTIAL}") as folder:
        grown = Path(folder) / VMDK
        try:
            vmdk.grow(box.vmdk, grown, disk << 30)
        except ValueError as error:
            _raise(box, [f"{VMDK}: {error}"])
        write_virtualbox_box(grown, target, disk << 10)


def verify(home: Home, box: Box) -> None:
    """The full check: every byte of every file against the manifest, and the manifest against the box's name.

    Raises:
        BoxError: something differs; `details` names each file.
    """
    problems = []
    for name in sorted(box.files):
        problems += _other_bytes(box, name) if (box.folder / name).is_file() else [f"{name}: missing"]
    # The manifest itself might have been changed together with a file: the folder's name tells.
    if box.folder not in _places(home, box.name, box.digest) or box.files[DISK].sha256 != box.digest:
        problems.append(f"{MANIFEST}: does not belong to {box.folder.name}")
    _raise(box, problems)


def folder_of(home: Home, name: str, digest: str) -> Path:
    """Where a box lies, or would: under the beginning of its digest, unless another box with the same one is there."""
    short, whole = _places(home, name, digest)
    try:
        return short if read_box(short).digest == digest else whole
    except BoxError:
        return short  # nothing, or nothing whole


def _places(home: Home, name: str, digest: str) -> tuple[Path, Path]:
    return home.boxes / f"{name}@{digest[:SHORT]}", home.boxes / f"{name}@{digest}"


def _ensure(box: Box, name: str, make: Callable[[Path], None]) -> Box:
    if name in box.files:
        return box
    begun = box.folder / f"{name}{PARTIAL}"
    for left in box.folder.glob(f"*{PARTIAL}*"):  # by a klab that was killed; a disk's worth of it
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    try:
        make(begun)
        begun.replace(box.folder / name)
    finally:
        begun.unlink(missing_ok=True)
    complete = replace(box, files={**box.files, name: describe_file(box.folder / name)})
    write_manifest(complete)
    return complete


def is_partial(folder: Path) -> bool:
    return folder.name.endswith(PARTIAL)


def _raise(box: Box, problems: list[str]) -> None:
    if problems:
        raise BoxError(
            f"the box {box.name} ({box.short}) is damaged",
            details=problems,
            hint=(
                Remedy("box rm", options=(box.name,)),
                " and ",
                build_command(box.recipe, box.kubernetes),
            ),
        )
