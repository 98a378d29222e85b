"""Small disk images as people download them, and ways to spoil them."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from lab import process

MIB = 1 << 20


def write_raw(target: Path, mib: int = 8) -> Path:
    """A disk with a boot signature, one partition in a DOS table and some content."""
    sectors = mib * MIB // 512
    head = bytearray(512)
    head[446:462] = struct.pack("<B3xB3xII", 0x80, 0x83, 2048, sectors - 2048)
    head[510:] = b"\x55\xaa"
    with target.open("wb") as file:
        file.truncate(mib * MIB)
        file.write(head)
        file.seek(2 * MIB)
        file.write(random.Random(mib).randbytes(2 * MIB))  # noqa: S311 - nothing that could be compressed away
    return target


def write_gpt(target: Path, mib: int = 8) -> Path:
    """The same with a GUID partition table, whose copy is in the last sector."""
    write_raw(target, mib)
    with target.open("r+b") as file:
        file.seek(450)
        file.write(b"\xee")
        file.seek(512)
        file.write(struct.pack("<8s24xQ", b"EFI PART", mib * MIB // 512 - 1))
    return target


def write_qcow2(target: Path, mib: int = 8, *options: str) -> Path:
    """The disk of `write_raw` as qcow2; `options` are those of qemu-img convert."""
    raw = write_raw(target.with_suffix(".raw"), mib)
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, target], timeout=60)
    raw.unlink()
    return target
