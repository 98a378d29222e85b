"""A small stream-optimized VMDK, written without qemu-img, in the layout that qemu-img writes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SECTOR = 512
GRAIN = 128  # sectors
HEADER = struct.Struct("<4sII4QI3QB4sH")


def write_vmdk(file: Path, gib: int = 8) -> None:
    """A disk of so many GiB with something in its first grain."""
    capacity = gib << 30 >> 9
    tables = -(-capacity // (GRAIN * 512))
    directory = -(-tables * 4 // SECTOR)
    redundant = 21
    main = redundant + directory + tables * 4
    overhead = -(-(main + directory + tables * 4) // GRAIN) * GRAIN
    header = HEADER.pack(
        b"KDMV", 3, 0x30003, capacity, GRAIN, 1, 20, 512, redundant, main, overhead, 0, b"\n \r\n", 1
    ).ljust(SECTOR, b"\0")
    descriptor = (
        '# Disk DescriptorFile\nversion=1\nCID=6b6c6162\nparentCID=ffffffff\ncreateType="streamOptimized"\n\n'
        f'# Extent description\nRW {capacity} SPARSE "{file.name}"\n\n# The Disk Data Base\n#DDB\n\n'
        'ddb.virtualHWVersion = "4"\nddb.geometry.cylinders = "16383"\nddb.geometry.heads = "16"\n'
        'ddb.geometry.sectors = "63"\nddb.adapterType = "ide"\n'
    )
    data = header + descriptor.encode().ljust(20 * SECTOR, b"\0")
    for place in (redundant, main):
        first = place + directory
        data += struct.pack(f"<{tables}I", *(first + i * 4 for i in range(tables))).ljust(directory * SECTOR, b"\0")
        data += struct.pack("<I", overhead).ljust(tables * 4 * SECTOR, b"\0")
    packed = zlib.compress(b"klab" * (GRAIN * SECTOR // 4))
    grain = struct.pack("<QI", 0, len(packed)) + packed
    grains = grain.ljust(-(-len(grain) // SECTOR) * SECTOR, b"\0")
    file.write_bytes(data.ljust(overhead * SECTOR, b"\0") + grains + bytes(SECTOR))
