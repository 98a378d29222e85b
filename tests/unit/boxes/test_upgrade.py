"""What an upgrade takes out of a box's disk: a real file system in a real image."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from lab import process
from lab.boxes import registry
from lab.boxes.disk import FIRST_SECTOR, SECTOR
from lab.boxes.images import Stored
from lab.boxes.upgrade import PROGRAMS, write
from lab.errors import BoxError

OFFSET = FIRST_SECTOR * SECTOR
REF, OTHER = "registry.k8s.io/pause:3.10", "docker.io/library/nginx:latest"


def stored(ref: str, letter: str) -> Stored:
    return Stored(ref, letter * 64, "c" * 64, (f"{letter}1" * 32, "d" * 64))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a box with two images that share a layer."""
    root, blobs = tmp_path / "root", tmp_path / "blobs"
    (root / "usr/bin").mkdir(parents=True)
    for name in PROGRAMS:
        (root / "usr/bin" / name).write_text(f"the program {name}")
    blobs.mkdir()
    images = [stored(REF, "a"), stored(OTHER, "b")]
    for image in images:
        for digest in (image.manifest, image.config, *image.layers):
            (blobs / digest).write_text(f"blob {digest}")
    registry.write(root / registry.STORAGE, blobs, images)
    return root


def disk_of(root: Path) -> Path:
    raw, disk = root.with_suffix(".raw"), root.with_suffix(".qcow2")
    with raw.open("wb") as file:
        file.truncate(OFFSET + (16 << 20))
    process.run(["mke2fs", "-q", "-t", "ext4", "-d", root, "-E", f"offset={OFFSET}", raw, "16M"], timeout=60)
    process.run(["qemu-img", "convert", "-O", "qcow2", raw, disk], timeout=60)
    return disk


def test_programs_and_the_images_that_were_asked_for(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "a folder with blanks" / "up.tar.zst"
    target.parent.mkdir()
    write(disk_of(root), [REF], target)
    process.run(["zstd", "-q", "-d", target, "-o", tmp_path / "tar"], timeout=60)
    with tarfile.open(tmp_path / "tar") as tar:
        files = {member.name: member for member in tar.getmembers()}
        kubeadm = tar.extractfile("bin/kubeadm")
        assert kubeadm is not None
        assert kubeadm.read() == b"the program kubeadm"
    assert {name for name in files if name.startswith("bin/")} == {f"bin/{name}" for name in PROGRAMS}
    assert files["bin/kubelet"].mode == 0o755
    blobs = {name.split("/")[-2] for name in files if name.endswith("/data")}
    assert blobs == {"a" * 64, "c" * 64, "a1" * 32, "d" * 64}
    there = "registry/docker/registry/v2/repositories/registry.k8s.io/pause/_manifests/tags/3.10/current/link"
    assert there in files
    assert not any("nginx" in name for name in files)
    assert [path.name for path in target.parent.iterdir()] == ["up.tar.zst"]


def test_equal_disks_give_equal_files(root: Path, tmp_path: Path) -> None:
    disk = disk_of(root)
    for place in (tmp_path / "one", tmp_path / "two"):
        place.mkdir()
        write(disk, [REF, OTHER], place / "up")
    assert (tmp_path / "one" / "up").read_bytes() == (tmp_path / "two" / "up").read_bytes()


def test_what_the_box_lacks_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BoxError, match=r"lacks the image registry\.k8s\.io/pause:3\.11"):
        write(disk_of(root), ["registry.k8s.io/pause:3.11"], tmp_path / "up")
    (root / "usr/bin/kubelet").unlink()
    with pytest.raises(BoxError, match="lacks bin/kubelet"):
        write(disk_of(root), [REF], tmp_path / "up")


def test_a_registry_that_lacks_a_blob(root: Path, tmp_path: Path) -> None:
    digest = "a" * 64
    (root / registry.STORAGE / "docker/registry/v2/blobs/sha256/aa" / digest / "data").unlink()
    with pytest.raises(BoxError, match="registry is damaged") as caught:
        write(disk_of(root), [REF], tmp_path / "up")
    assert caught.value.details == (f"{digest} is missing",)
