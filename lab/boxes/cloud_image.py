"""Boxes that are made of a cloud image: a distribution's own disk, which a person downloads.

klab converts it and changes nothing in it, so that no root is needed: what a node has to be told comes with its seed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab import process
from lab.boxes import store
from lab.boxes.cache import PARTIAL, Cache, digest_file, key_of
from lab.boxes.incoming import put_locked
from lab.boxes.manifest import DISK, IMAGE, Box, MadeFrom, describe_file, write_manifest
from lab.disks import qcow2
from lab.disks.foreign_image import ForeignImage, look
from lab.errors import Advice, BoxError, HostError, Remedy, UsageError
from lab.files import make_private
from lab.reminder import repeating
from lab.scenario.catalog import Catalog
from lab.scenario.cloud_images import CloudImage
from lab.store import Home
from lab.text import visible

_GIB = 1 << 30
_CONVERT_SECONDS = 1800.0
_QUICK_SECONDS = 60.0
# Of a box its disk, and the same again as Vagrant wants it.
_COPIES = 2


def without_file(name: str, image: CloudImage) -> UsageError:
    """The error for a box that is asked for without the image that it is made of; it tells where that is to be had."""
    return UsageError(
        f"the box {name} is made of the cloud image of {image.system}, which you download",
        details=[
            f"from:     {image.address}",
            f"file:     {image.file}",
            f"compare:  its checksum, in {image.checksums} there",
            *(f"note:     {note}" for note in image.notes),
        ],
        hint=("then ", Remedy("box build", options=(name, "--image", image.file))),
    )


def no_image_box(name: str, catalog: Catalog) -> UsageError:
    """The error for an image that is given for a box which is not made of one."""
    what = f"the box {visible(name)} is not made of a cloud image" if name else "--image needs the name of a box"
    boxes = ", ".join(f"{box} ({image.system})" for box, image in catalog.images.items())
    return UsageError(what, hint=f"those that are: {boxes}; leave out --image for any other")


def make_box(home: Home, name: str, image: CloudImage, file: Path, tell: Callable[[str], None]) -> Box:
    """Make a box of an image, or find the one that was made of the same file before.

    Args:
        home: klab's folder.
        name: the recipe's name.
        image: what the recipe says of the image.
        file: the image.
        tell: told each step as it begins.

    Raises:
        NotFound, UsageError: there is no such file, or it is no disk image.
        BoxError: the image is damaged, refers to other files, or is too large for the nodes' disks.
        HostError, ProgramError: there is no room; qemu-img is not installed, or fails.
    """
    again = _again(image)
    found = look(file, again)
    if found.size > image.disk * _GIB:
        raise BoxError(
            f"the disk in {visible(str(file))} is too large for a node: {found.size / _GIB:.1f} GiB",
            details=[f"the box {name} is for nodes with disks of {image.disk} GiB and more"],
            hint=again,
        )
    with repeating(tell) as said:
        said(f"{visible(file.name)}: its SHA-256")
        digest = digest_file(file)
        inputs = key_of(IMAGE, digest)
        for box in store.list_boxes(home):
            if not box.origin and (box.name, box.inputs) == (name, inputs):
                return store.check_box(box)
        _refuse_no_room(home, found)
        with Cache(home.cache).lock(said):
            work = home.boxes / f"{name}{PARTIAL}"
            make_private(home.boxes)
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()

            def move(part: str, target: Path) -> None:
                (work / part).replace(target)

            try:
                said(f"converting it: {found.kind}, a disk of {found.size / _GIB:.1f} GiB")
                mib = _convert(found, work / DISK, again)
                said("digest, and box file for Vagrant")
                disk = describe_file(work / DISK)
                made = Box(
                    name=name,
                    digest=disk.sha256,
                    inputs=inputs,
                    kubernetes="",
                    recipe=name,
                    created=0.0,
                    virtual_mib=mib,
                    folder=work,
                    files={DISK: disk},
                    made_from=MadeFrom(IMAGE, {"file": visible(file.name), "sha256": digest}, {}, {}, {}),
                )
                return _own(put_locked(home, made, move), made)
            finally:
                shutil.rmtree(work, ignore_errors=True)


def _own(box: Box, made: Box) -> Box:
    """The box in the store as one that was made here: another file, or a bundle, may have brought the same disk."""
    own = replace(box, origin="", inputs=made.inputs, made_from=made.made_from)
    if own != box:
        write_manifest(own)
    return own


def _again(image: CloudImage) -> Advice:
    return (
        f"download {image.file} from {image.address}, and compare its checksum with the one in {image.checksums} there"
    )


def _refuse_no_room(home: Home, found: ForeignImage) -> None:
    needed = _COPIES * qcow2.measured(found.file, found.kind)
    place = next(each for each in (home.boxes, *home.boxes.parents) if each.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise HostError(
            f"the box needs {needed / _GIB:.1f} GiB of free disk, {home.root} has {free / _GIB:.1f}",
            hint=(Remedy("box prune"), ", or set KLAB_HOME to a folder on a larger disk"),
        )


def _convert(found: ForeignImage, target: Path, again: Advice) -> int:
    """Write the image as a box's disk, uncompressed; returns what a guest sees of it, in MiB, which are whole GiB.

    Raises:
        BoxError: qemu-img cannot read all of it.
    """
    source = str(found.file.absolute())
    argv = ["qemu-img", "convert", "-f", found.kind, "-O", "qcow2", source, str(target)]
    done = process.run(argv, timeout=_CONVERT_SECONDS, check=False)
    if done.code:
        raise BoxError(f"qemu-img cannot convert {visible(found.file.name)}", details=done.tail, hint=again)
    gib = -(-found.size // _GIB)
    process.run(["qemu-img", "resize", "-q", "-f", "qcow2", target, f"{gib}G"], timeout=_QUICK_SECONDS)
    return gib << 10
