"""A disk image that a person supplies: what kind it is, or why klab cannot use it.

Nothing is left to qemu-img's guesses, since a raw disk may hold anything, a qcow2 header that names other files too:
the beginning of the file decides.
Sources: QEMU, docs/interop/qcow2.rst; UEFI 2.10, "GUID Partition Table (GPT) Disk Layout"; ECMA-119.
"""

from __future__ import annotations

import shlex
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.disks import qcow2
from lab.errors import Advice, BoxError, NotFound, UsageError
from lab.files import refuse_special
from lab.text import visible

SECTOR = 512
# Where GRUB, and what is as large, may write over a raw disk's beginning, no other format has its mark.
_ISO_AT, _ISO = 0x8001, b"CD001"
_TAR_AT, _TAR = 257, b"ustar"
_HEAD = _ISO_AT + len(_ISO)
_BOOT_AT, _BOOT = 510, b"\x55\xaa"
_GPT, _GPT_LAST = b"EFI PART", struct.Struct("<32xQ")
# A partition of a DOS table: its type, its first sector, their number; the four of a disk.
_PARTITION, _PARTITIONS_AT, _PARTITIONS, _PARTITION_SIZE = struct.Struct("<4xB3xII"), 446, 4, 16
_PROTECTIVE = 0xEE
_SECONDS = 60.0

_UNPACK = {
    b"\x1f\x8b": ("gzip", "gunzip {}"),
    b"\xfd7zXZ\0": ("xz", "xz -d {}"),
    b"BZh": ("bzip2", "bunzip2 {}"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd {}"),
    b"PK\x03\x04": ("zip", "unzip {}"),
}
_OTHER_FORMATS = {
    b"KDMV": "VMDK",
    b"# Disk DescriptorFile": "VMDK",
    b"<<< ": "VDI",
    b"vhdxfile": "VHDX",
    b"conectix": "VHD",
}
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")


@dataclass(frozen=True, slots=True)
class ForeignImage:
    """An image that is whole, lies on no other file and begins as a disk does that a BIOS boots.

    `kind` is raw or qcow2, `size` the bytes that a guest sees.
    """

    file: Path
    kind: str
    size: int


def look(file: Path, again: Advice) -> ForeignImage:
    """Look at an image.

    Args:
        file: the image.
        again: where a better one is to be had, for hints.

    Raises:
        NotFound: there is no such file.
        UsageError: it is not a regular file, or of another kind.
        BoxError: it is damaged, or refers to other files.
        HostError, ProgramTimeout: qemu-img is not installed, or does not end.
    """
    head, length = _read(file, again)
    shown = visible(str(file))
    if not head.startswith(qcow2.MAGIC):
        _refuse_other_kinds(shown, head, again)
        found = ForeignImage(file, "raw", length)
    else:
        if why := qcow2.strangeness(file, versions=(2, 3)):
            raise BoxError(f"{shown} cannot be a box's disk", details=[why], hint=_way_out(file, why, again))
        if why := qcow2.damage(file):
            raise BoxError(f"{shown} is not whole", details=[why], hint=again)
        found = ForeignImage(file, "qcow2", qcow2.virtual_size(file))
        head = _first_sectors(file)
    if why := _disk_trouble(head, found.size):
        raise BoxError(f"{shown} {why}", hint=again)
    return found


def _read(file: Path, again: Advice) -> tuple[bytes, int]:
    """How a file begins, and how many bytes it has."""
    shown = visible(str(file))
    try:
        refuse_special(file, hint=_inside(file) or again)
        with file.open("rb") as handle:
            return handle.read(_HEAD), file.stat().st_size
    except FileNotFoundError:
        raise NotFound(f"there is no file {shown}", hint=again) from None
    except OSError as error:
        raise UsageError(
            f"{shown} cannot be read", details=[error.strerror or str(error)], hint="change its permissions, or copy it"
        ) from None


def _inside(folder: Path) -> Advice:
    """The files in a folder that may be meant."""
    if not folder.is_dir():
        return ""
    found = sorted(each.name for each in folder.iterdir() if each.suffix in {".img", ".qcow2", ".raw"})
    return f"name the file in it: {visible(', '.join(found[:5]))}" if found else ""


def _refuse_other_kinds(shown: str, head: bytes, again: Advice) -> None:
    quoted = shlex.quote(shown)
    for magic, (program, unpack) in _UNPACK.items():
        if head.startswith(magic):
            raise UsageError(f"{shown} is packed by {program}", hint=f"unpack it first: {unpack.format(quoted)}")
    for magic, name in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise UsageError(
                f"{shown} is a disk in the format {name}; klab takes qcow2 and raw",
                hint=f"qemu-img convert -O qcow2 {quoted} disk.qcow2",
            )
    if head[_ISO_AT:].startswith(_ISO):
        raise UsageError(f"{shown} is an ISO, with an installer on it; klab needs the cloud image", hint=again)
    if head[_TAR_AT:].startswith(_TAR):
        raise UsageError(
            f"{shown} is a tar file, such as an OVA or a box of Vagrant's; klab needs the disk in it",
            hint=f"tar -xf {quoted} unpacks it",
        )
    if head.lstrip().lower().startswith(_WEB_PAGE):
        raise UsageError(f"{shown} is a web page: something else was downloaded than the image", hint=again)


def _way_out(file: Path, why: str, again: Advice) -> Advice:
    if why == qcow2.NAMES_BACKING:
        whole = f"qemu-img convert -O qcow2 {shlex.quote(str(file))} whole.qcow2"
        return f"where that is there, {whole} makes one file of both"
    return again


def _first_sectors(file: Path) -> bytes:
    """How the disk in a qcow2 image begins: boot sector, and the header of a GUID partition table."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "head"
        argv = ["qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={SECTOR}", "count=2"]
        process.run([*argv, f"if={file.absolute()}", f"of={target}"], timeout=_SECONDS)
        return target.read_bytes()


def _disk_trouble(head: bytes, size: int) -> str:
    """The reason why a disk with this beginning and size cannot boot; empty if there is none."""
    if head[_BOOT_AT : _BOOT_AT + len(_BOOT)] != _BOOT:
        return "is not an image of a disk that boots: its first sector has no boot signature"
    end = max(_ends(head), default=0) * SECTOR
    if end > size:
        return f"is cut off: its partitions end at {end} bytes, the disk at {size}"
    return ""


def _ends(head: bytes) -> Iterator[int]:
    """The sectors at which the disk's partitions end, and its table's copy."""
    gpt = head[SECTOR : 2 * SECTOR]
    if gpt.startswith(_GPT) and len(gpt) >= _GPT_LAST.size:
        yield _GPT_LAST.unpack_from(gpt)[0] + 1
        return
    for i in range(_PARTITIONS):
        kind, first, count = _PARTITION.unpack_from(head, _PARTITIONS_AT + i * _PARTITION_SIZE)
        if kind not in {0, _PROTECTIVE}:
            yield first + count
