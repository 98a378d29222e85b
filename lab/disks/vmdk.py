"""Stream-optimized VMDK images: the same content on a larger disk.

Such an image is what an OVF appliance holds: compressed grains, each found through a grain table, and each table
through the grain directory. A disk that grows needs a longer directory; the grains stay as they are and move by as
much as the directory takes. So neither QEMU nor VirtualBox is asked to convert gigabytes.

Source: "Virtual Disk Format 5.0" (VMware technical note, "Hosted Sparse Extents" and "Stream-Optimized Compressed
Sparse Extents"); `qemu-img convert -o subformat=streamOptimized` writes its tables in front, and so does this module.
"""

from __future__ import annotations

import re
import shutil
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

SECTOR = 512
# Magic, version, flags; capacity, grain size, descriptor's offset and size; grain table entries; both directories,
# overhead; clean shutdown, characters that a text transfer would change; compression. In sectors, little-endian.
_HEADER = struct.Struct("<4sII4QI3QB4sH")
_MAGIC = b"KDMV"
_COMPRESSED = 1 << 16
_IN_TABLE = 512  # grain table entries, and the only number that is in use
_TABLE_SECTORS = _IN_TABLE * 4 // SECTOR
_FIRST_GRAIN = 2  # an entry below says that the grain is all zeros
_MOST_TABLES = 1 << 16  # 2 TiB in grains of 64 KiB
_MOST_DESCRIPTOR = 128  # sectors
_EXTENT = re.compile(rb"^RW \d+ SPARSE ", re.MULTILINE)
_CYLINDERS = re.compile(rb'^ddb\.geometry\.cylinders = "\d+"', re.MULTILINE)
_TRACK = 16 * 63  # sectors in a cylinder, as the descriptor has them


@dataclass(frozen=True, slots=True)
class _Header:
    magic: bytes
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor: int
    descriptor_size: int
    in_table: int
    redundant: int
    directory: int
    overhead: int
    unclean: int
    newlines: bytes
    compression: int

    @property
    def tables(self) -> int:
        """How many grain tables a disk of this capacity has."""
        return -(-self.capacity // (self.grain * self.in_table))

    def packed(self) -> bytes:
        values = (getattr(self, name) for name in self.__slots__)
        return _HEADER.pack(*values).ljust(SECTOR, b"\0")


def grow(source: Path, target: Path, size: int) -> None:
    """Write the same image with a disk of `size` bytes, whole GiB and no less than it has.

    Raises:
        ValueError: the source is not a stream-optimized VMDK with its tables in front, or is larger.
    """
    with source.open("rb") as old, target.open("wb") as new:
        header = _read_header(old)
        if size % (header.grain * SECTOR) or size // SECTOR < header.capacity:
            raise ValueError(f"a disk of {header.capacity * SECTOR} bytes cannot become one of {size}")
        descriptor = _read_descriptor(old, header)
        tables = _read_tables(old, header)
        grown = replace(header, capacity=size // SECTOR)
        directory = -(-grown.tables * 4 // SECTOR)
        grown = replace(grown, redundant=header.descriptor + header.descriptor_size)
        grown = replace(grown, directory=grown.redundant + directory + len(tables) * _TABLE_SECTORS)
        end = grown.directory + directory + len(tables) * _TABLE_SECTORS
        grown = replace(grown, overhead=-(-end // header.grain) * header.grain)
        by = grown.overhead - header.overhead
        moved = [[entry + by if entry >= _FIRST_GRAIN else entry for entry in table] for table in tables]

        new.write(grown.packed().ljust(header.descriptor * SECTOR, b"\0"))
        new.write(_resized(descriptor, grown.capacity).ljust(header.descriptor_size * SECTOR, b"\0"))
        for place in (grown.redundant, grown.directory):
            first = place + directory
            offsets = [first + i * _TABLE_SECTORS for i in range(len(moved))]
            new.seek(place * SECTOR)
            new.write(struct.pack(f"<{len(offsets)}I", *offsets).ljust(directory * SECTOR, b"\0"))
            for table in moved:
                new.write(struct.pack(f"<{_IN_TABLE}I", *table))
        old.seek(header.overhead * SECTOR)
        new.seek(grown.overhead * SECTOR)
        shutil.copyfileobj(old, new, 1 << 20)


def capacity(image: Path) -> int:
    """How many bytes the disk in an image has.

    Raises:
        ValueError: it is not a stream-optimized VMDK.
    """
    with image.open("rb") as file:
        return _read_header(file).capacity * SECTOR


def _read_header(file: BinaryIO) -> _Header:
    data = file.read(SECTOR)
    if len(data) < SECTOR:
        raise ValueError("it is too short for a VMDK")
    header = _Header(*_HEADER.unpack_from(data))
    if header.magic != _MAGIC or not header.flags & _COMPRESSED or header.in_table != _IN_TABLE:
        raise ValueError("it is not a stream-optimized VMDK")
    if not (0 < header.grain <= 1 << 11 and header.capacity > 0 and header.tables <= _MOST_TABLES):
        raise ValueError(f"a disk of {header.capacity} sectors in grains of {header.grain} is not known")
    if not (0 < header.descriptor < header.overhead and 0 < header.descriptor_size <= _MOST_DESCRIPTOR):
        raise ValueError("its descriptor is not in front")
    if not header.descriptor < header.directory < header.overhead:
        raise ValueError("its grain directory is not in front")
    return header


def _read_descriptor(file: BinaryIO, header: _Header) -> bytes:
    file.seek(header.descriptor * SECTOR)
    return file.read(header.descriptor_size * SECTOR).rstrip(b"\0")


def _resized(descriptor: bytes, sectors: int) -> bytes:
    text, found = _EXTENT.subn(b"RW %d SPARSE " % sectors, descriptor)
    if found != 1:
        raise ValueError("its descriptor has no sparse extent")
    return _CYLINDERS.sub(b'ddb.geometry.cylinders = "%d"' % (sectors // _TRACK), text)


def _read_tables(file: BinaryIO, header: _Header) -> list[tuple[int, ...]]:
    """The grain tables, in order; one that the directory does not have is empty."""
    file.seek(header.directory * SECTOR)
    tables = []
    for offset in _words(file, header.tables):
        if offset == 0:
            tables.append((0,) * _IN_TABLE)
            continue
        file.seek(offset * SECTOR)
        tables.append(_words(file, _IN_TABLE))
    return tables


def _words(file: BinaryIO, count: int) -> tuple[int, ...]:
    data = file.read(count * 4)
    if len(data) < count * 4:
        raise ValueError("a grain table is cut off")
    return struct.unpack(f"<{count}I", data)
