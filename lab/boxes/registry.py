"""The storage of a registry, written as files.

The node's registry (Debian's docker-registry) finds the images there when it starts;
nothing is pushed, so no registry has to run on the host. Where the runtime's store has an
image's blobs as files, the registry's are hard links to them and cost no disk.

Shape: github.com/distribution/distribution, registry/storage/paths.go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.boxes.images import Stored
from lab.errors import BoxError

STORAGE = Path("var/lib/docker-registry")
REPOSITORIES = Path("docker/registry/v2/repositories")


def repository(ref: str) -> tuple[str, str]:
    """Where an image stands in the registry: (repository, tag).

    The upstream host becomes the first part of the name, as the nodes' hosts.toml has it.

    >>> repository("registry.k8s.io/pause:3.10.1")
    ('registry.k8s.io/pause', '3.10.1')
    """
    name, _, tag = ref.rpartition(":")
    return name, tag


def write(
    storage: Path, blobs: Path, images: Iterable[Stored], *, place: Callable[[Path, Path], object] = os.link
) -> None:
    """Write the registry's storage.

    Args:
        storage: the registry's rootdirectory.
        blobs: a folder with a file HEX for each blob; on the same file system, for links.
        images: what to put in.
        place: puts a blob where the registry has it.

    Raises:
        BoxError: a blob is missing.
    """
    root = storage / "docker" / "registry" / "v2"
    for image in images:
        name, tag = repository(image.ref)
        folder = root / "repositories" / name
        for digest in (image.manifest, image.config, *image.layers):
            _blob(root, blobs, digest, place)
        for digest in (image.config, *image.layers):
            _link(folder / "_layers" / "sha256" / digest, digest)
        manifests = folder / "_manifests"
        _link(manifests / "revisions" / "sha256" / image.manifest, image.manifest)
        _link(manifests / "tags" / tag / "current", image.manifest)
        _link(manifests / "tags" / tag / "index" / "sha256" / image.manifest, image.manifest)


def give_to(storage: Path, passwd: Path, user: str) -> None:
    """Make everything but the shared blobs belong to a user of the box.

    Args:
        storage: the registry's rootdirectory.
        passwd: the box's /etc/passwd; its numbers are not the host's.
        user: the name in it.

    Raises:
        BoxError: there is no such user.
    """
    for line in passwd.read_text().splitlines():
        entry = line.split(":")
        if entry[0] == user:
            uid, gid = int(entry[2]), int(entry[3])
            break
    else:
        raise BoxError(f"the box has no user {user}")
    for folder, _, files in os.walk(storage):
        os.chown(folder, uid, gid)
        for name in files:
            if name == "link":
                os.chown(Path(folder) / name, uid, gid)


def link(storage: Path, name: str, other: str) -> None:
    """Let repositories answer under another name as well.

    Args:
        storage: the registry's rootdirectory.
        name: the name, of one repository or of several: "library".
        other: what it stands for: "docker.io/library".
    """
    (storage / REPOSITORIES / name).symlink_to(other)


def _blob(root: Path, blobs: Path, digest: str, place: Callable[[Path, Path], object]) -> None:
    source = blobs / digest
    if not source.is_file():
        raise BoxError(f"the runtime's store lacks the blob {digest}")
    target = root / "blobs" / "sha256" / digest[:2] / digest / "data"
    if not target.exists():
        target.parent.mkdir(parents=True)
        place(source, target)


def _link(folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link").write_text(f"sha256:{digest}")
