"""Boxes on disk: finding and checking them.

    boxes/NAME@DIGEST12/
    |-- manifest.json   what the box is, and size and SHA-256 of each file beside it
    |-- disk.qcow2      the disk every node starts from
    |-- libvirt.box     the same disk as Vagrant's libvirt provider wants it
    |-- disk.vmdk       the same disk for VirtualBox   } made when
    |-- virtualbox.box  the VMDK as Vagrant wants it   } first asked for
    |-- kubectl         the one in the box, for the host
    |-- packages.txt    every Debian package in it, with its version
    `-- contents.txt    every file in it: SHA-256, mode, owner, path

A box is addressed by its disk: `digest` is the SHA-256 of disk.qcow2. A rebuild that
changes nothing lands in the same folder; one that does stands beside the older, and labs
made from the older keep it.

A box that came with a bundle carries an `origin`. It holds a disk alone, no program, and serves the labs of that
bundle only, until the same box is built here or a person trusts it; see `lab.boxes.incoming`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab import records
from lab.boxes.cache import PARTIAL, Cache, digest_file
from lab.boxes.disk import write_vmdk
from lab.boxes.vagrant import write_virtualbox_box
from lab.errors import BoxError
from lab.machines.features import BoxFormat
from lab.machines.providers import provider_named
from lab.store import Home, write_atomic

MANIFEST = "manifest.json"
DISK = "disk.qcow2"
LIBVIRT = "libvirt.box"
VMDK = "disk.vmdk"
VIRTUALBOX = "virtualbox.box"
KUBECTL = "kubectl"
PACKAGES = "packages.txt"
CONTENTS = "contents.txt"
# What a box is, wherever its files lie.
FACTS = ("name", "digest", "inputs", "kubernetes", "recipe", "created", "virtual_mib")
_FORMAT = 1
_SHORT = 12
_MOST_SECONDS = 1 << 36  # of the year 4147
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")  # of a box, a recipe, a file


@dataclass(frozen=True, slots=True)
class BoxFile:
    """One file of a box: bytes, time of last change in ns, SHA-256 in hex."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Box:
    """A built box.

    `digest` is the SHA-256 of the disk, `inputs` the key of what it was built from,
    `created` the time of building in seconds since 1970, `virtual_mib` the size of the
    disk that a guest sees. `files` maps file names to what they must be. `origin` names the
    bundle that the box came with; it is empty for a box that was built or trusted here.
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
    def short(self) -> str:
        """The digest's beginning, for people and names."""
        return self.digest[:_SHORT]

    @property
    def size(self) -> int:
        """Bytes on the host, all files together."""
        return sum(file.size for file in self.files.values())


def facts(box: object) -> dict[str, Any]:
    """What a box is, by name; of anything that says so of one."""
    return {name: getattr(box, name) for name in FACTS}


def find_box(home: Home, box_name: str, kubernetes: str) -> Box:
    """The newest box of that recipe and Kubernetes version that was built, or is trusted, here.

    Args:
        home: klab's folder.
        box_name: the recipe's name, as a scenario has it: debian-13.
        kubernetes: a full version: 1.35.4.

    Raises:
        BoxError: there is none yet.
    """
    found = [box for box in list_boxes(home) if (box.recipe, box.kubernetes) == (box_name, kubernetes)]
    for box in found:
        if not box.origin:
            return box
    raise BoxError(
        f"the box {box_name} with Kubernetes {kubernetes} has not been built here",
        details=[f"{box.name} ({box.short}) serves the labs of the bundle it came with: {box.origin}" for box in found]
        + [error.message for error in damaged_boxes(home)],
        hint=f"sudo -E klab box build {box_name} --kubernetes {kubernetes}"
        + (f", or klab box trust {found[0].short} if you trust its author" if found else ""),
    )


def box_of(home: Home, folder: str) -> Box | None:
    """The box in that folder of the store, as a lab's record names it; None where it is gone or damaged.

    Args:
        home: klab's folder.
        folder: NAME@DIGEST.
    """
    return next((box for box in list_boxes(home) if box.folder.name == folder), None)


def list_boxes(home: Home) -> list[Box]:
    """Every box whose manifest can be read, newest first; `damaged_boxes` has the others."""
    found = [box for box in _read_all(home) if isinstance(box, Box)]
    return sorted(found, key=lambda box: (-box.created, box.name))


def damaged_boxes(home: Home) -> list[BoxError]:
    """Why boxes cannot be read, one error for each."""
    return [error for error in _read_all(home) if isinstance(error, BoxError)]


def _read_all(home: Home) -> Iterator[Box | BoxError]:
    if not home.boxes.is_dir():
        return
    for file in sorted(home.boxes.glob(f"*/{MANIFEST}")):
        if not is_partial(file.parent):
            try:
                yield read_box(file.parent)
            except BoxError as error:
                yield error


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
        ValueError: a value is out of its bounds; says which.
    """
    for key, pattern in (("digest", _DIGEST), ("name", _NAME), ("recipe", _NAME), ("kubernetes", _NAME)):
        if pattern.fullmatch(getattr(box, key)) is None:
            raise ValueError(f"{key} is {getattr(box, key)!r}")
    if not 0 <= box.created < _MOST_SECONDS:
        raise ValueError(f"created is {box.created}")
    if box.virtual_mib < 1:
        raise ValueError(f"virtual_mib is {box.virtual_mib}")
    for name, file in box.files.items():
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"a file is called {name!r}")
        if file.size < 0 or _DIGEST.fullmatch(file.sha256) is None:
            raise ValueError(f"{name} has {file.size} bytes and the digest {file.sha256!r}")
    return replace(box, files=MappingProxyType(dict(box.files)))


def write_manifest(box: Box) -> None:
    """Write a box's manifest; the box exists from then on."""
    data: dict[str, Any] = {
        "format": _FORMAT,
        **facts(box),
        **({"origin": box.origin} if box.origin else {}),
        "files": {
            name: {"size": f.size, "mtime_ns": f.mtime_ns, "sha256": f.sha256} for name, f in sorted(box.files.items())
        },
    }
    write_atomic(box.folder / MANIFEST, json.dumps(data, indent=2) + "\n")


def describe_file(path: Path) -> BoxFile:
    """What the manifest says of a file as it is now."""
    stat = path.stat()
    return BoxFile(stat.st_size, stat.st_mtime_ns, digest_file(path))


def check_box(box: Box) -> Box:
    """The quick check before a lab is made: each file is there, with the size and date it was left with.

    A file of another date is read: a box that was copied, restored or moved is the same box. Its manifest gets the
    new dates, so that it is read once.

    Returns:
        The box, with the dates that its files have now.

    Raises:
        BoxError: a file is missing or has other bytes; `details` names each.
    """
    problems, files = [], dict(box.files)
    for name, expected in sorted(box.files.items()):
        path = box.folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
            continue
        stat = path.stat()
        if stat.st_size != expected.size:
            problems.append(f"{name}: {stat.st_size} bytes instead of {expected.size}")
        elif stat.st_mtime_ns != expected.mtime_ns:
            files[name] = replace(expected, mtime_ns=stat.st_mtime_ns)
            problems += _other_bytes(box, name)
    _raise(box, problems)
    if files == box.files:
        return box
    moved = replace(box, files=files)
    with contextlib.suppress(OSError):  # a store that this person cannot write to: the files are read each time
        write_manifest(moved)
    return moved


def _other_bytes(box: Box, name: str) -> list[str]:
    found, expected = digest_file(box.folder / name), box.files[name].sha256
    return [] if found == expected else [f"{name}: SHA-256 is {found}, not {expected}"]


def ensure_vmdk(home: Home, box: Box) -> Box:
    """The box with its VMDK, made from the disk where it does not exist yet (some 40 seconds).

    Raises:
        ProgramError: qemu-img failed.
        Conflict: another klab builds or puts a box.
    """
    with Cache(home.cache).lock():
        return _with_vmdk(read_box(box.folder))


def _with_vmdk(box: Box) -> Box:
    return _ensure(box, VMDK, lambda target: write_vmdk(box.disk, target))


def vagrant_box(home: Home, box: Box, provider: str) -> Path:
    """The file that `vagrant box add` takes, checked; VirtualBox's is made when first asked for.

    Args:
        home: klab's folder.
        box: a built box.
        provider: the name of the provider that is to make machines from it.

    Raises:
        LabError: the provider is unknown.
        BoxError: the box is damaged.
        ProgramError: the VMDK cannot be made.
        Conflict: another klab builds or puts a box.
    """
    box = check_box(box)
    if provider_named(provider).features.box_format == BoxFormat.LIBVIRT:
        return box.vagrant_box
    with Cache(home.cache).lock():
        box = _with_vmdk(read_box(box.folder))
        _ensure(box, VIRTUALBOX, lambda target: write_virtualbox_box(box.vmdk, target, box.virtual_mib))
    return box.folder / VIRTUALBOX


def verify(home: Home, box: Box) -> None:
    """The full check: every byte of every file against the manifest, and the manifest against the box's name.

    Raises:
        BoxError: something differs; `details` names each file.
    """
    problems = []
    for name in sorted(box.files):
        problems += _other_bytes(box, name) if (box.folder / name).is_file() else [f"{name}: missing"]
    # The manifest itself might have been changed together with a file: the folder's name tells.
    if box.folder not in _places(home, box.name, box.digest) or box.files[DISK].sha256 != box.digest:
        problems.append(f"{MANIFEST}: does not belong to {box.folder.name}")
    _raise(box, problems)


def folder_of(home: Home, name: str, digest: str) -> Path:
    """Where a box lies, or would: under the beginning of its digest, unless another box with the same one is there."""
    short, whole = _places(home, name, digest)
    try:
        return short if read_box(short).digest == digest else whole
    except BoxError:
        return short  # nothing, or nothing whole


def _places(home: Home, name: str, digest: str) -> tuple[Path, Path]:
    return home.boxes / f"{name}@{digest[:_SHORT]}", home.boxes / f"{name}@{digest}"


def _ensure(box: Box, name: str, make: Callable[[Path], None]) -> Box:
    if name in box.files:
        return box
    partial = box.folder / f"{name}{PARTIAL}"
    try:
        make(partial)
        partial.replace(box.folder / name)
    finally:
        partial.unlink(missing_ok=True)
    complete = replace(box, files={**box.files, name: describe_file(box.folder / name)})
    write_manifest(complete)
    return complete


def is_partial(folder: Path) -> bool:
    return folder.name.endswith(PARTIAL)


def _raise(box: Box, problems: list[str]) -> None:
    if problems:
        raise BoxError(
            f"the box {box.name} ({box.short}) is damaged",
            details=problems,
            hint=f"klab box rm {box.name} and klab box build {box.recipe} --kubernetes {box.kubernetes}",
        )
