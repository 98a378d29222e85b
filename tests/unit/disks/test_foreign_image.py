"""An image that a person supplies: taken where it is a whole disk, refused in words where it is anything else."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cloud_images import MIB, write_gpt, write_qcow2, write_raw

from lab import process
from lab.disks.foreign_image import ForeignImage, look
from lab.errors import BoxError, LabError, NotFound, UsageError

AGAIN = "get it again"


def test_raw_disks_and_both_versions_of_qcow2_are_taken(tmp_path: Path) -> None:
    for name, write in (("dos.raw", write_raw), ("gpt.raw", write_gpt)):
        file = write(tmp_path / name)
        assert look(file, AGAIN) == ForeignImage(file, "raw", 8 * MIB)
    for name, options in (
        ("new.img", ()),
        ("old.img", ("-o", "compat=0.10")),
        ("packed.img", ("-c",)),
        ("zstd.img", ("-c", "-o", "compression_type=zstd")),
    ):
        file = write_qcow2(tmp_path / name, 8, *options)
        assert look(file, AGAIN) == ForeignImage(file, "qcow2", 8 * MIB)


def test_a_link_and_a_name_with_blanks_are_fine(tmp_path: Path) -> None:
    file = write_qcow2(tmp_path / "noble server.img")
    link = tmp_path / "link.img"
    link.symlink_to(file)
    assert look(link, AGAIN).size == 8 * MIB


def refused(file: Path, error: type[LabError]) -> LabError:
    with pytest.raises(error) as caught:
        look(file, AGAIN)
    assert caught.value.hint
    return caught.value


def iso(file: Path) -> None:
    file.write_bytes(bytes(510) + b"\x55\xaa" + bytes(0x8001 - 512) + b"CD001" + bytes(4096))  # a hybrid one


def archive(file: Path) -> None:
    inner = write_raw(file.with_suffix(".inner"))
    with tarfile.open(file, "w") as tar:
        tar.add(inner, "box.img")


def packed(file: Path) -> None:
    file.write_bytes(gzip.compress(bytes(4096)))


def other_format(file: Path) -> None:
    raw = write_raw(file.with_suffix(".inner"))
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, file], timeout=60)


@pytest.mark.parametrize(
    ("make", "said", "hint"),
    [
        (iso, "is an ISO, with an installer on it", AGAIN),
        (archive, "is a tar file", "tar -xf"),
        (packed, "is packed by gzip", "gunzip"),
        (other_format, "is a disk in the format VMDK", "qemu-img convert -O qcow2"),
        (lambda file: file.write_text("\n<!DOCTYPE html><title>Not Found</title>"), "is a web page", AGAIN),
        (lambda file: file.mkdir(), "is a folder", AGAIN),
        (os.mkfifo, "is a FIFO", AGAIN),
    ],
)
def test_another_kind_of_file(tmp_path: Path, make: Callable[[Path], object], said: str, hint: str) -> None:
    make(file := tmp_path / "image")
    error = refused(file, UsageError)
    assert said in error.message
    assert hint in error.hint


def test_no_file_and_a_folder_with_images(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "nothing.img", NotFound).message
    write_raw(tmp_path / "noble.img")
    assert refused(tmp_path, UsageError).hint == "name the file in it: noble.img"


@pytest.mark.parametrize("content", [b"", b"x", bytes(1 << 20), b"just text\n" * 1000])
def test_what_is_no_disk_at_all(tmp_path: Path, content: bytes) -> None:
    (file := tmp_path / "a.img").write_bytes(content)
    assert "no boot signature" in refused(file, BoxError).message


def test_a_qcow2_without_a_system(tmp_path: Path) -> None:
    file = tmp_path / "empty.qcow2"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", file, "1G"], timeout=60)
    assert "no boot signature" in refused(file, BoxError).message


def test_an_image_that_lies_on_another(tmp_path: Path) -> None:
    base, file = write_qcow2(tmp_path / "base.qcow2"), tmp_path / "top.qcow2"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, file], timeout=60)
    error = refused(file, BoxError)
    assert error.details == ("it names a backing file",)
    assert "qemu-img convert -O qcow2" in error.hint


def test_an_image_whose_data_is_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "outer.qcow2"
    data = f"data_file={tmp_path / 'inner.raw'}"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", data, file, "8M"], timeout=60)
    assert "features" in refused(file, BoxError).details[0]


@pytest.mark.parametrize("options", [(), ("-c",), ("-o", "compat=0.10")])
def test_a_qcow2_that_is_cut_off(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = write_qcow2(tmp_path / "a.qcow2", 8, *options)
    os.truncate(file, file.stat().st_size // 2)
    assert "is not whole" in refused(file, BoxError).message


@pytest.mark.parametrize("write", [write_raw, write_gpt])
def test_a_raw_disk_that_is_cut_off(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    file = write(tmp_path / "a.raw")
    os.truncate(file, 7 * MIB)
    assert "is cut off" in refused(file, BoxError).message


def test_a_header_that_is_cut_off(tmp_path: Path) -> None:
    file = write_qcow2(tmp_path / "a.qcow2")
    os.truncate(file, 50)
    assert refused(file, BoxError).details == ("it is not a qcow2 image",)
