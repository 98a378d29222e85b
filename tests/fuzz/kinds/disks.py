"""Binary files that come from elsewhere or were kept: bundles, disk images, RAM images and their deltas."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from unittest import mock

from fuzz.harness import Target
from fuzz.hostile import honest, parts
from fuzz.mutations import json_texts, octets, texts
from support.vmdks import write_vmdk

from lab import process
from lab.bundles.file import open_bundle
from lab.bundles.format import from_json, to_json
from lab.bundles.keys import check_keys
from lab.bundles.pack import pack, unpack
from lab.bundles.signature import signer
from lab.disks import deltas, foreign_image, images, qcow2, ram_delta, ram_pipe, vmdk
from lab.errors import LabError, ProgramError

PAGE = 4096
CONTENT = bytes(range(256)) * 40


def bundles(folder: Path) -> list[bytes]:
    return [honest(folder).path.read_bytes()]


def bundle(data: bytes, folder: Path) -> None:
    file = folder / "lesson-3.klab"
    file.write_bytes(data)
    before = sorted(folder.rglob("*"))
    try:
        open_bundle(file).verify(lambda _size: None)
    finally:
        assert sorted(folder.rglob("*")) == before, "looking at it has written something"


def manifests(folder: Path) -> list[str]:
    return [to_json(honest(folder).bundle)]


def manifest(text: str, _folder: Path) -> None:
    found = from_json(text)
    assert from_json(to_json(found)) == found
    json.dumps(to_json(found))


_KEYS: dict[str, bytes] = {}


def keys(folder: Path) -> list[bytes]:
    """Each key or certificate of a bundle, behind its name and a NUL."""
    files = parts(honest(folder))[1]
    _KEYS.update({name: content for name, content in files.items() if name.startswith(("pki/", "ssh/"))})
    return [name.encode() + b"\0" + content for name, content in _KEYS.items()]


def key(data: bytes, _folder: Path) -> None:
    name, _, content = data.partition(b"\0")
    check_keys({**_KEYS, name.decode("utf-8", "replace"): content})


def signature(text: str, _folder: Path) -> None:
    with mock.patch.object(process, "run", return_value=process.Completed(("ssh-keygen",), 0, text, "")):
        assert signer(b"{}", b"signature").fingerprint


def packed(_folder: Path) -> list[bytes]:
    return [b"".join(pack(io.BytesIO(CONTENT), lambda _size: None))]


def unpacked(data: bytes, _folder: Path) -> None:
    found = b"".join(unpack(io.BytesIO(data), len(CONTENT)))  # type: ignore[arg-type]
    assert found == CONTENT


def headers(_folder: Path) -> list[bytes]:
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, 1 << 33, 0, 1, 196608, 65536, 1, 0, 0)
    fields = struct.pack(">QQQII", 0, 0, 0, 4, 112)
    backed = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, 120, 12, 16, 1 << 33) + bytes(88) + b"/etc/passwd\0"
    return [header + fields + bytes(400), backed + bytes(300)]


def disk(data: bytes, folder: Path) -> None:
    file = folder / "disk.qcow2"
    file.write_bytes(data)
    length = [at for at, block in images.stretches(file) if not block][-1]
    assert length == len(data)
    for _, block in images.stretches(file):
        bytes(block)
    images.write(images.stretches(file), folder / "copy.qcow2")
    assert (folder / "copy.qcow2").stat().st_size == len(data)
    sound = {"virtual-size": 1 << 33, "format-specific": {"data": {}}}
    with mock.patch.object(qcow2, "_info", return_value=sound):
        deltas.refuse_strange(file)
    assert data[8:16] == bytes(8), "it names a file below"


def supplied_disks(_folder: Path) -> list[bytes]:
    """How raw disks begin: with a DOS table, and with a GUID partition table."""
    dos = bytearray(4096)
    dos[450:462] = struct.pack("<B3xII", 0x83, 2, 4)
    dos[510:512] = b"\x55\xaa"
    guid = bytearray(dos)
    guid[450] = 0xEE
    guid[512:552] = struct.pack("<8s24xQ", b"EFI PART", 7)
    return [bytes(dos), bytes(guid)]


def supplied_disk(data: bytes, folder: Path) -> None:
    file = folder / "noble.img"
    file.write_bytes(data)
    with mock.patch.object(process, "run", side_effect=ProgramError("qemu-img failed", hint="none")):
        found = foreign_image.look(file, "get it again")
    assert (found.kind, found.size) == ("raw", len(data))


def room_needed(text: str, folder: Path) -> None:
    with mock.patch.object(process, "run", return_value=process.Completed(("qemu-img",), 0, text, "")):
        assert qcow2.measured(folder / "disk.raw", "raw") >= 0


def image_info(text: str, folder: Path) -> None:
    file = folder / "disk.qcow2"
    file.write_bytes(headers(folder)[0])
    with mock.patch.object(process, "run", return_value=process.Completed(("qemu-img",), 0, text, "")):
        why = qcow2.strangeness(file)
        assert why is None or isinstance(why, str)
        assert isinstance(qcow2.virtual_size(file), int)


def stream(pages: int, salt: int) -> bytes:
    """A RAM image: what libvirt writes first, then QEMU's stream of pages."""
    head = struct.pack("=16sII", b"LibvirtQemudSave", 2, 20).ljust(92, b"\0") + b"<domain/>".ljust(20, b"\0")
    entries = [struct.pack(">Q", 0 | 0x08) + b"\x06pc.ram" + bytes([salt]) * PAGE]
    entries += [struct.pack(">Q", n * PAGE | 0x28) + bytes([(n * salt) % 251]) * PAGE for n in range(1, pages)]
    return head + b"QEVM\0\0\0\x03" + b"".join(entries) + b"end" * 2000


def rams(_folder: Path) -> list[bytes]:
    return [stream(6, 3), stream(6, 5)]


OLDER = stream(6, 3)


def ram(data: bytes, folder: Path) -> None:
    """An image, whatever it holds, comes back from its delta as it was."""
    new, old, delta = folder / "new.ram", folder / "old.ram", folder / "delta.ram"
    new.write_bytes(data)
    old.write_bytes(OLDER)
    ram_delta.write(new, old, delta)
    ram_delta.check(delta, old)
    assert b"".join(bytes(block) for _, block in ram_delta.stretches(delta, old)) == data
    ram_delta.restore(delta, old, folder / "again.ram")
    assert (folder / "again.ram").read_bytes() == data


def ram_deltas(folder: Path) -> list[bytes]:
    (folder / "new.ram").write_bytes(stream(6, 5))
    (folder / "old.ram").write_bytes(OLDER)
    ram_delta.write(folder / "new.ram", folder / "old.ram", folder / "delta.ram")
    return [(folder / "delta.ram").read_bytes()]


def damaged_delta(data: bytes, folder: Path) -> None:
    delta, old = folder / "delta.ram", folder / "old.ram"
    delta.write_bytes(data)
    old.write_bytes(OLDER)
    for _, block in ram_delta.stretches(delta, old):
        assert len(block) <= images.BLOCK


def ram_head(data: bytes, _folder: Path) -> None:
    found = ram_pipe.head([data[:50], data[50:]])
    assert data.startswith(found)


GOOD = f'Good "klab-checkpoint" signature with ED25519 key SHA256:{"a" * 43}\n'
QEMU_IMG = json.dumps(
    {
        "virtual-size": 8589934592,
        "filename": "disk.qcow2",
        "cluster-size": 65536,
        "format": "qcow2",
        "actual-size": 200704,
        "dirty-flag": False,
        "format-specific": {"type": "qcow2", "data": {"compat": "1.1", "lazy-refcounts": False, "corrupt": False}},
    }
)
DAMAGED = (LabError, ValueError)  # documented; the caller words it


def sparse_disks(folder: Path) -> list[bytes]:
    write_vmdk(folder / "small.vmdk", 1)
    return [(folder / "small.vmdk").read_bytes()]


def sparse_disk(data: bytes, folder: Path) -> None:
    (folder / "fuzzed.vmdk").write_bytes(data)
    vmdk.grow(folder / "fuzzed.vmdk", folder / "grown.vmdk", 2 << 30)
    assert vmdk.capacity(folder / "grown.vmdk") == 2 << 30


TARGETS = (
    Target(
        "bundle",
        (
            "lab.bundles.file:open_bundle",
            "lab.bundles.file:_read",
            "lab.bundles.file:_signature",
            "lab.bundles.file:BundleFile.verify",
        ),
        bundles,
        octets,
        bundle,
    ),
    Target("bundle manifest", ("lab.bundles.format:from_json",), manifests, json_texts, manifest),
    Target(
        "keys in a bundle",
        ("lab.bundles.keys:_certificate", "lab.bundles.keys:_private", "lab.bundles.keys:_check_ssh"),
        keys,
        octets,
        key,
        refuses=DAMAGED,
    ),
    Target("ssh-keygen", ("lab.bundles.signature:_good",), lambda _: [GOOD], texts, signature),
    Target("packed member", ("lab.bundles.pack:unpack",), packed, octets, unpacked, refuses=DAMAGED),
    Target(
        "VMDK",
        (
            "lab.disks.vmdk:_read_header",
            "lab.disks.vmdk:_read_descriptor",
            "lab.disks.vmdk:_read_tables",
            "lab.disks.vmdk:_words",
        ),
        sparse_disks,
        octets,
        sparse_disk,
        refuses=(ValueError,),
    ),
    Target(
        "disk image",
        ("lab.disks.deltas:refuse_strange", "lab.disks.images:anonymous", "lab.disks.qcow2:_in_header"),
        headers,
        octets,
        disk,
    ),
    Target(
        "supplied disk",
        ("lab.disks.foreign_image:_read", "lab.disks.foreign_image:_ends", "lab.disks.foreign_image:_disk_trouble"),
        supplied_disks,
        octets,
        supplied_disk,
    ),
    Target(
        "qemu-img measure", ("lab.disks.qcow2:measured",), lambda _: ['{"required": 327680}'], json_texts, room_needed
    ),
    Target("qemu-img info", ("lab.disks.qcow2:_info",), lambda _: [QEMU_IMG], json_texts, image_info),
    Target("RAM image", ("lab.disks.ram_delta:write",), rams, octets, ram, refuses=DAMAGED),
    Target("RAM delta", ("lab.disks.ram_delta:_groups",), ram_deltas, octets, damaged_delta, refuses=DAMAGED),
    Target("head of a RAM image", ("lab.disks.ram_pipe:head",), rams, octets, ram_head, refuses=DAMAGED),
)
