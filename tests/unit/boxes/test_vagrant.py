"""Box files as Vagrant's providers read them."""

from __future__ import annotations

import json
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

from lab.boxes.vagrant import write_libvirt_box, write_virtualbox_box

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as box:
        return {m.name: box.extractfile(m).read() for m in box}  # type: ignore[union-attr]


def test_libvirt(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"qcow2")
    write_libvirt_box(tmp_path / "disk", tmp_path / "a.box", 8192)
    write_libvirt_box(tmp_path / "disk", tmp_path / "b.box", 8192)
    found = members(tmp_path / "a.box")
    assert json.loads(found["metadata.json"]) == {"provider": "libvirt", "format": "qcow2", "virtual_size": 8}
    assert found["box.img"] == b"qcow2"
    assert (tmp_path / "a.box").read_bytes() == (tmp_path / "b.box").read_bytes()


def test_virtualbox_describes_the_disk_it_brings(tmp_path: Path) -> None:
    (tmp_path / "disk.vmdk").write_bytes(b"vmdk")
    write_virtualbox_box(tmp_path / "disk.vmdk", tmp_path / "a.box", 8192)
    found = members(tmp_path / "a.box")
    envelope = ET.fromstring(found["box.ovf"])  # noqa: S314 - written a line above
    href = envelope.find(f"{OVF}References/{OVF}File").get(f"{OVF}href")  # type: ignore[union-attr]
    assert href in found
    assert envelope.find(f"{OVF}DiskSection/{OVF}Disk").get(f"{OVF}capacity") == str(8 << 30)  # type: ignore[union-attr]
    assert 'default_nic_type = "virtio"' in found["Vagrantfile"].decode()
