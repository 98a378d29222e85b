"""Disks that go to another machine: what distinguishes one from its box, as one qcow2 file without anything below it.

Source of the format: QEMU, docs/interop/qcow2.rst; of what qemu-img does: QEMU, docs/tools/qemu-img.rst.
"""

from __future__ import annotations

from pathlib import Path

from lab import process
from lab.disks import images, qcow2
from lab.errors import MachineError


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
    """Make sure that a file is what `write` writes. It may come from any person, and a disk image can name host files.

    Raises:
        MachineError: it is not.
    """
    if why := qcow2.strangeness(file):
        raise MachineError(
            "klab did not write this disk image",
            details=[why],
            hint="get the bundle again, from a person you trust",
        )
