"""What a box is: the files in its folder, and the manifest that describes them.

    boxes/NAME@DIGEST12/
    |-- manifest.json   what the box is, and size and SHA-256 of each file beside it
    |-- disk.qcow2      the disk every node starts from
    |-- libvirt.box     the same disk as Vagrant's libvirt provider wants it
    |-- disk.vmdk       the same disk for VirtualBox                } made when
    |-- virtualbox-20g.box   on a disk of 20 GiB, as Vagrant wants it } first asked for
    |-- upgrade.tar.zst  what makes a running node one of this version, made when first asked for
    |-- kubectl         the one in the box, for the host
    |-- packages.txt    every Debian package in it, with its version
    `-- contents.txt    every file in it: SHA-256, mode, owner, path

The manifest is written last: a folder without one is not a box. The last three are in no box that is made of a cloud
image, or came with a bundle.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab import records
from lab.boxes.cache import digest_file
from lab.components.kubernetes.sources import SOURCE
from lab.errors import BoxError, Remedy
from lab.files import write_atomic

MANIFEST = "manifest.json"
DISK = "disk.qcow2"
LIBVIRT = "libvirt.box"
VMDK = "disk.vmdk"
UPGRADE = "upgrade.tar.zst"
KUBECTL = "kubectl"
PACKAGES = "packages.txt"
CONTENTS = "contents.txt"
# What a box is, wherever its files lie.
FACTS = ("name", "digest", "inputs", "kubernetes", "recipe", "created", "virtual_mib")
_FORMAT = 1
SHORT = 12
IMAGE = "image"
_MOST_SECONDS = 1 << 36  # of the year 4147
DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")  # of a box, a recipe, a file
_VERSION = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,80})?")  # empty for none
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,400}")  # of an image


@dataclass(frozen=True, slots=True)
class BoxFile:
    """One file of a box: bytes, time of last change in ns, SHA-256 in hex."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class MadeFrom:
    """What a box was made from.

    `source` is release, mirror or source, see `lab.components.kubernetes.sources`, or IMAGE for a cloud image.
    `addresses` tells where upstream's programs and images were taken from, without secrets; it is empty where all was
    compiled, and has name and SHA-256 of a cloud image's file. `versions` are those of the recipe.
    `programs` has the SHA-256 of each in hex, `images` the digest of each manifest as "sha256:HEX".
    """

    source: str
    addresses: Mapping[str, str]
    versions: Mapping[str, str]
    programs: Mapping[str, str]
    images: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Box:
    """A built box.

    `digest` is the SHA-256 of the disk, `inputs` the key of what it was built from,
    `created` the time of building in seconds since 1970, `virtual_mib` the size of the
    disk that a guest sees. `files` maps file names to what they must be. `origin` names the
    bundle that the box came with; it is empty for a box that was built or trusted here.
    `kubernetes` is empty for a cloud image, which holds none. `made_from` is None for one that was not built here,
    or by a klab that did not write it down.
    """

    name: str
    digest: str
    inputs: str
    kubernetes: str
    recipe: str
    created: float
    virtual_mib: int
    folder: Path
    files: Mapping[str, BoxFile]
    origin: str = ""
    made_from: MadeFrom | None = None

    @property
    def disk(self) -> Path:
        return self.folder / DISK

    @property
    def vagrant_box(self) -> Path:
        """For Vagrant's libvirt provider."""
        return self.folder / LIBVIRT

    @property
    def vmdk(self) -> Path:
        """For VirtualBox; `ensure_vmdk` makes it."""
        return self.folder / VMDK

    @property
    def kubectl(self) -> Path:
        """The kubectl of this Kubernetes version, runs on the host."""
        return self.folder / KUBECTL

    @property
    def contents(self) -> Path:
        """Every file in the box, see `lab.boxes.contents`."""
        return self.folder / CONTENTS

    @property
    def packages(self) -> Path:
        """Every Debian package in the box, one "name version" a line."""
        return self.folder / PACKAGES

    @property
    def title(self) -> str:
        """What it is, for people: debian-13 with Kubernetes 1.35.4."""
        return title(self.recipe, self.kubernetes)

    @property
    def source(self) -> str:
        """Where its Kubernetes came from; klab compiled all of it before it wrote that down."""
        return self.made_from.source if self.made_from else SOURCE

    @property
    def short(self) -> str:
        """The digest's beginning, for people and names."""
        return self.digest[:SHORT]

    @property
    def size(self) -> int:
        """Bytes on the host, all files together."""
        return sum(file.size for file in self.files.values())


def title(recipe: str, kubernetes: str) -> str:
    """What a box is, for people; arguments as of `Box`."""
    return f"{recipe} with Kubernetes {kubernetes}" if kubernetes else recipe


def build_command(recipe: str, kubernetes: str, *options: str) -> Remedy:
    """What makes a box; arguments as of `Box`, and further options."""
    words = ("--kubernetes", kubernetes) if kubernetes else ("--image", "FILE")
    return Remedy("box build", options=(recipe, *words, *options))


def facts(box: object) -> dict[str, Any]:
    """The description of a box, by name; of any object that has one."""
    return {name: getattr(box, name) for name in FACTS}


def read_box(folder: Path) -> Box:
    """One box by its folder.

    Raises:
        BoxError: its manifest is damaged or of another klab.
    """
    file = folder / MANIFEST
    try:
        data = records.parse(file.read_text())
        found = records.pop_format(data)
        if found != _FORMAT:
            raise ValueError(f"format {found}, this klab reads {_FORMAT}")
        return _checked(records.build(Box, data, others=True, folder=folder))
    except (OSError, ValueError) as error:
        raise BoxError(
            f"the manifest of box {folder.name} is damaged",
            details=[f"{file}: {error}"],
            hint=f"rm -r {shlex.quote(str(folder))}",
        ) from error


def _checked(box: Box) -> Box:
    """The same box.

    Raises:
        ValueError: a value is out of its bounds; the message names it.
    """
    for key, pattern in (("digest", DIGEST), ("name", _NAME), ("recipe", _NAME), ("kubernetes", _VERSION)):
        if pattern.fullmatch(getattr(box, key)) is None:
            raise ValueError(f"{key} is {getattr(box, key)!r}")
    if not 0 <= box.created < _MOST_SECONDS:
        raise ValueError(f"created is {box.created}")
    if box.virtual_mib < 1:
        raise ValueError(f"virtual_mib is {box.virtual_mib}")
    for name, file in box.files.items():
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"a file is called {name!r}")
        if file.size < 0 or DIGEST.fullmatch(file.sha256) is None:
            raise ValueError(f"{name} has {file.size} bytes and the digest {file.sha256!r}")
    if box.made_from is not None:
        check_made_from(box.made_from)
    return replace(box, files=MappingProxyType(dict(box.files)))


def check_made_from(made: MadeFrom) -> None:
    """Make sure that what a box was made from has sound names and digests.

    Raises:
        ValueError: it has not; the message names it.
    """
    if _NAME.fullmatch(made.source) is None:
        raise ValueError(f"source is {made.source!r}")
    for name, digest in made.programs.items():
        if _NAME.fullmatch(name) is None or DIGEST.fullmatch(digest) is None:
            raise ValueError(f"the program {name!r} has the digest {digest!r}")
    for name, digest in made.images.items():
        if _REF.fullmatch(name) is None or DIGEST.fullmatch(digest.removeprefix("sha256:")) is None:
            raise ValueError(f"the image {name!r} has the digest {digest!r}")
    for name, value in (*made.versions.items(), *made.addresses.items()):
        if not f"{name}{value}".isprintable():
            raise ValueError(f"{name!r} is {value!r}")


def write_manifest(box: Box) -> None:
    """Write a box's manifest; the box exists from then on."""
    data: dict[str, Any] = {
        "format": _FORMAT,
        **facts(box),
        **({"origin": box.origin} if box.origin else {}),
        **({"made_from": asdict(box.made_from)} if box.made_from else {}),
        "files": {
            name: {"size": f.size, "mtime_ns": f.mtime_ns, "sha256": f.sha256} for name, f in sorted(box.files.items())
        },
    }
    write_atomic(box.folder / MANIFEST, json.dumps(data, indent=2) + "\n")


def describe_file(path: Path) -> BoxFile:
    """The manifest's entry for a file as it is now."""
    stat = path.stat()
    return BoxFile(stat.st_size, stat.st_mtime_ns, digest_file(path))
