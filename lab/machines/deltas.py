"""Disks that go to another machine: what distinguishes one from its box, as one qcow2 file without anything below it.

Source of the format: QEMU, docs/interop/qcow2.rst; of what qemu-img does: QEMU, docs/tools/qemu-img.rst.
"""

from __future__ import annotations

import struct
from pathlib import Path

from lab import process
from lab.errors import MachineError
from lab.machines import images

# Magic, version, where the name of the file below stands, encryption, incompatible features: at these offsets.
_VERSION_AT, _BACKING_AT, _CRYPT_AT, _FEATURES_AT, _HEADER = 4, 8, 32, 72, 80
_COMPRESSION_TYPE, _EXTENDED_ENTRIES = 1 << 3, 1 << 4
_KNOWN_FEATURES = _COMPRESSION_TYPE | _EXTENDED_ENTRIES


def write(top: Path, box: Path, target: Path) -> None:
    """Write to a new file what distinguishes a disk from the box that it lies on, however many layers that is.

    Args:
        top: the uppermost layer; it and all below it are only read.
        box: the file at the bottom, by the name that the layers have for it.
        target: the file to write. It lies on nothing, so it names no file of this machine.

    Raises:
        ProgramError, ProgramTimeout: qemu-img fails.
    """
    target.unlink(missing_ok=True)
    below = ["-F", "qcow2", "-b", str(top.absolute())]
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", *below, target], timeout=images.QUICK_SECONDS)
    # Not -u: whatever differs between the two files below is taken up; what no layer above the box holds is not read.
    below = ["-F", "qcow2", "-b", str(box.absolute())]
    process.run(["qemu-img", "rebase", "-q", "-f", "qcow2", *below, target], timeout=images.MERGE_SECONDS)
    process.run(["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "", target], timeout=images.QUICK_SECONDS)


def refuse_strange(file: Path) -> None:
    """Make sure that a file is what `write` writes. It may come from anybody: a disk image can name files of this host.

    Raises:
        MachineError: it is not.
    """
    with file.open("rb") as handle:
        header = handle.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(images.QCOW2):
        raise _strange("it is no qcow2 image")
    (version,) = struct.unpack_from(">I", header, _VERSION_AT)
    (backing,) = struct.unpack_from(">Q", header, _BACKING_AT)
    (crypt,) = struct.unpack_from(">I", header, _CRYPT_AT)
    (features,) = struct.unpack_from(">Q", header, _FEATURES_AT)
    if version != 3:
        raise _strange(f"its version is {version}, not 3")
    if backing:
        raise _strange("it names a file that it lies on")
    if crypt:
        raise _strange("it is encrypted")
    if features & ~_KNOWN_FEATURES:
        raise _strange(f"it has features that no disk of klab's has: {features & ~_KNOWN_FEATURES:#x}")


def _strange(why: str) -> MachineError:
    return MachineError(
        "the disk image is not one that klab has written",
        details=[why],
        hint="get the checkpoint anew, from whom you trust",
    )
