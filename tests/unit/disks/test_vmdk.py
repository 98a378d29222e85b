"""Stream-optimized VMDKs that grow. qemu-img makes them and is the judge."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from lab import process
from lab.disks import vmdk

GIB = 1 << 30


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk of 1 GiB with data at its beginning, in its middle and at its end."""
    disk = tmp_path / "disk.qcow2"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], timeout=60)
    writes = ["write -P 7 0 64k", "write -P 9 512M 200k", f"write -P 3 {GIB - 65536} 64k"]
    process.run(["qemu-io", *(word for write in writes for word in ("-c", write)), disk], timeout=60)
    convert = ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", disk, tmp_path / "small.vmdk"]
    process.run(convert, timeout=60)
    return tmp_path / "small.vmdk"


@pytest.mark.parametrize("gib", [1, 2, 20])
def test_the_content_is_the_same_on_a_larger_disk(image: Path, tmp_path: Path, gib: int) -> None:
    grown = tmp_path / "grown.vmdk"
    vmdk.grow(image, grown, gib * GIB)
    assert vmdk.capacity(grown) == gib * GIB
    told = json.loads(process.run(["qemu-img", "info", "--output=json", grown], timeout=60).stdout)
    assert told["virtual-size"] == gib * GIB
    assert told["format-specific"]["data"]["create-type"] == "streamOptimized"
    process.run(["qemu-img", "check", "-f", "vmdk", grown], timeout=60)
    # What is beyond the smaller disk must read as zeros.
    process.run(["qemu-img", "compare", "-f", "vmdk", "-F", "vmdk", image, grown], timeout=60)
    assert grown.stat().st_size < image.stat().st_size + (1 << 20)


def test_it_can_grow_again(image: Path, tmp_path: Path) -> None:
    vmdk.grow(image, tmp_path / "two.vmdk", 2 * GIB)
    vmdk.grow(tmp_path / "two.vmdk", tmp_path / "five.vmdk", 5 * GIB)
    process.run(["qemu-img", "compare", "-f", "vmdk", "-F", "vmdk", image, tmp_path / "five.vmdk"], timeout=60)


def test_grains_follow_one_another_as_an_import_reads_them(image: Path, tmp_path: Path) -> None:
    """VirtualBox imports without looking at the tables: from the overhead on, marker by marker, to the end marker."""
    vmdk.grow(image, tmp_path / "grown.vmdk", 20 * GIB)
    data = (tmp_path / "grown.vmdk").read_bytes()
    (overhead,) = struct.unpack_from("<Q", data, 64)
    place, found = overhead * 512, []
    while True:
        sector, size = struct.unpack_from("<QI", data, place)
        if size == 0:
            break
        found.append(sector)
        place += -(-(12 + size) // 512) * 512
    assert found == [0, 512 * 2048, 512 * 2048 + 128, 512 * 2048 + 256, 512 * 2048 + 384, (GIB - 65536) // 512]


def test_it_does_not_shrink(image: Path, tmp_path: Path) -> None:
    vmdk.grow(image, tmp_path / "grown.vmdk", 2 * GIB)
    with pytest.raises(ValueError, match="cannot become one of 1073741824"):
        vmdk.grow(tmp_path / "grown.vmdk", tmp_path / "back.vmdk", GIB)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("too short", lambda data: data[:100]),
        ("not a stream-optimized VMDK", lambda data: b"QFI\xfb" + data[4:]),
        ("not in front", lambda data: data[:56] + b"\xff" * 8 + data[64:]),
        ("cut off", lambda data: data[: 1024 * 30]),
        ("no sparse extent", lambda data: data.replace(b"SPARSE", b"FLAT..")),
    ],
)
def test_what_is_none(image: Path, tmp_path: Path, name: str, change: object) -> None:
    assert callable(change)
    image.write_bytes(change(image.read_bytes()))
    with pytest.raises(ValueError, match=name):
        vmdk.grow(image, tmp_path / "grown.vmdk", 2 * GIB)
