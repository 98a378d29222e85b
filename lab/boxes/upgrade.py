"""What a running node needs to become one of another Kubernetes version, taken out of a box's disk as one tar.

    bin/         kubeadm, kubelet, kubectl, and etcd's tools
    registry/    Kubernetes' images, as the storage of the node's registry has them (`lab.boxes.registry`)

No root and no mount: debugfs(8) reads the file system inside the disk.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from lab import process
from lab.boxes.disk import FIRST_SECTOR, SECTOR
from lab.boxes.registry import REPOSITORIES, STORAGE, repository
from lab.errors import BoxError, Remedy

PROGRAMS = ("kubeadm", "kubelet", "kubectl", "etcdctl", "etcdutl")
_SECONDS = 1800.0
_PREFIX = "sha256:"


def write(disk: Path, images: Collection[str], target: Path) -> None:
    """Write the tar of a box.

    Args:
        disk: the box's disk, qcow2.
        images: the references of the images that go in.
        target: the file to write, compressed by zstd, which an emulated guest unpacks several times as
            quickly as gzip. Equal disks give equal files.

    Raises:
        BoxError: the disk lacks a program or an image.
        HostError, ProgramError: qemu-img, debugfs or zstd is not installed, or fails; there is no room.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as temporary:
        work = Path(temporary)
        _extract(disk, work)
        with tarfile.open(work / "tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for name in PROGRAMS:
                _add(tar, work / "bin" / name, f"bin/{name}", 0o755)
            for file in sorted(_registry_files(work / "registry", images)):
                _add(tar, file, f"registry/{file.relative_to(work / 'registry')}", 0o644)
        process.run(["zstd", "-q", "-T0", "-o", target, work / "tar"], timeout=_SECONDS)


def extract_registry(disk: Path, work: Path) -> Path:
    """The storage of the registry in a box's disk, written below an existing folder.

    Returns:
        The storage's folder, which holds docker/registry/v2; of a disk without a registry it is empty.

    Raises:
        HostError, ProgramError: as `write`.
    """
    _extract(disk, work, programs=())
    return work / "registry"


def _extract(disk: Path, work: Path, programs: Iterable[str] = PROGRAMS) -> None:
    """The box's programs and the storage of its registry, as folders `bin` and `registry`."""
    raw = work / "disk.raw"
    process.run(["qemu-img", "convert", "-O", "raw", disk, raw], timeout=_SECONDS)
    (work / "bin").mkdir()
    (work / "registry").mkdir()
    wanted = [f"dump /usr/bin/{name} bin/{name}" for name in programs]
    wanted.append(f"rdump /{STORAGE}/{REPOSITORIES.parts[0]} registry")
    system = f"{raw.name}?offset={FIRST_SECTOR * SECTOR}"
    # Of another user it cannot make the owner, says so for each file, and continues.
    commands = "".join(f"{each}\n" for each in wanted)
    process.run(["debugfs", "-f", "-", system], timeout=_SECONDS, cwd=work, stdin=commands)
    raw.unlink()


def _registry_files(storage: Path, images: Iterable[str]) -> set[Path]:
    """The files of the registry's storage that belong to these images."""
    found: set[Path] = set()
    for ref in images:
        name, tag = repository(ref)
        folder = storage / REPOSITORIES / name
        if not (folder / "_manifests" / "tags" / tag / "current" / "link").is_file():
            raise BoxError(f"the box lacks the image {ref}", hint=(Remedy("box build"), " builds one that has it"))
        links = [path for path in folder.rglob("link") if path.is_file()]
        found.update(links)
        for link in links:
            digest = link.read_text(encoding="ascii").strip().removeprefix(_PREFIX)
            found.add(storage / REPOSITORIES.parent / "blobs" / "sha256" / digest[:2] / digest / "data")
    if missing := [path for path in found if not path.is_file()]:
        raise BoxError(
            "the box's registry is damaged",
            details=[f"{missing[0].parent.name} is missing"],
            hint=(Remedy("box verify"), " tells whether the box is whole"),
        )
    return found


def _add(tar: tarfile.TarFile, file: Path, name: str, mode: int) -> None:
    if not file.is_file():
        raise BoxError(f"the box lacks {name}", hint=(Remedy("box build"), " builds one that has it"))
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = file.stat().st_size, mode
    with file.open("rb") as content:
        tar.addfile(entry, content)
