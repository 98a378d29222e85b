"""What a disk boots with, and what klab sets right in a VMDK after qemu-img."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.boxes import disk
from lab.errors import BoxError

DESCRIPTOR = b'# Disk DescriptorFile\nversion=1\n%s\nparentCID=ffffffff\nRW 8 SPARSE "a.vmdk"\n'


def vmdk(content_id: bytes) -> bytes:
    """The head of a sparse VMDK: header, then a descriptor of two sectors from sector 1."""
    header = struct.pack("<4s2I4Q", b"KDMV", 3, 0x30001, 8, 128, 1, 2).ljust(512, b"\0")
    return header + (DESCRIPTOR % content_id).ljust(1024, b"\0") + b"grains"


@pytest.fixture
def qemu_img(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What qemu-img writes, one answer for each run."""
    answers: list[bytes] = []
    monkeypatch.setattr(disk.process, "run", lambda argv, **_: _write(argv, answers.pop(0)))
    return answers


def _write(argv: Sequence[Any], content: bytes) -> None:
    Path(argv[-1]).write_bytes(content)


@pytest.mark.parametrize("content_id", [b"CID=c99d47fc", b"CID=99d47fc", b"CID=7"])
def test_a_content_id_of_any_length_gives_the_same_vmdk(
    content_id: bytes, qemu_img: list[bytes], tmp_path: Path
) -> None:
    qemu_img.append(vmdk(content_id))
    disk.write_vmdk(tmp_path / "a.qcow2", tmp_path / "a.vmdk")
    assert (tmp_path / "a.vmdk").read_bytes() == vmdk(b"CID=6b6c6162")


@pytest.mark.parametrize("content", [b"", b"KDMV", vmdk(b"")])
def test_what_is_no_vmdk_is_said(content: bytes, qemu_img: list[bytes], tmp_path: Path) -> None:
    qemu_img.append(content)
    with pytest.raises(BoxError, match=r"a\.vmdk has no content id"):
        disk.write_vmdk(tmp_path / "a.qcow2", tmp_path / "a.vmdk")


@pytest.mark.parametrize("cgroup_v1", [False, True])
def test_a_kernel_is_told_of_cgroup_v1_where_the_kubelet_needs_it(cgroup_v1: bool) -> None:
    (line,) = (line for line in disk.boot_configuration(cgroup_v1=cgroup_v1).splitlines() if "/vmlinuz " in line)
    assert disk.COMMAND_LINE in line
    assert ("systemd.unified_cgroup_hierarchy=0" in line.split()) is cgroup_v1
