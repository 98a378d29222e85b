"""Built boxes on disk: finding, checking, removing.

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
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab.boxes.cache import PARTIAL, Cache, digest_file
from lab.boxes.disk import write_vmdk
from lab.boxes.vagrant import write_libvirt_box, write_virtualbox_box
from lab.errors import BoxError, Conflict
from lab.machines.vagrant_home import forget_box
from lab.store import Home, make_private, write_atomic

MANIFEST = "manifest.json"
DISK = "disk.qcow2"
LIBVIRT = "libvirt.box"
VMDK = "disk.vmdk"
VIRTUALBOX = "virtualbox.box"
KUBECTL = "kubectl"
PACKAGES = "packages.txt"
CONTENTS = "contents.txt"
# What goes to another store; the others are made from the disk.
PORTABLE = (DISK, KUBECTL, PACKAGES, CONTENTS)
# What a box is, wherever its files lie.
FACTS = ("name", "digest", "inputs", "kubernetes", "recipe", "created", "virtual_mib")
_FORMAT = 1


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
    disk that a guest sees. `files` maps file names to what they must be.
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
        return self.digest[:12]

    @property
    def size(self) -> int:
        """Bytes on the host, all files together."""
        return sum(file.size for file in self.files.values())


def facts(box: object) -> dict[str, Any]:
    """What a box is, by name; of anything that says so of one."""
    return {name: getattr(box, name) for name in FACTS}


def find_box(home: Home, box_name: str, kubernetes: str) -> Box:
    """The newest box of that recipe and Kubernetes version.

    Args:
        home: klab's folder.
        box_name: the recipe's name, as a scenario has it: debian-13.
        kubernetes: a full version: 1.35.4.

    Raises:
        BoxError: there is none yet.
    """
    found = [box for box in list_boxes(home) if (box.recipe, box.kubernetes) == (box_name, kubernetes)]
    if not found:
        raise BoxError(
            f"the box {box_name} with Kubernetes {kubernetes} has not been built here",
            hint=f"sudo -E klab box build {box_name} --kubernetes {kubernetes}",
        )
    return found[0]


def list_boxes(home: Home) -> list[Box]:
    """Every built box, newest first."""
    if not home.boxes.is_dir():
        return []
    found = [read_box(file.parent) for file in home.boxes.glob(f"*/{MANIFEST}") if not _is_partial(file.parent)]
    return sorted(found, key=lambda box: (-box.created, box.name))


def read_box(folder: Path) -> Box:
    """One box by its folder.

    Raises:
        BoxError: its manifest is damaged or of another klab.
    """
    file = folder / MANIFEST
    try:
        data = json.loads(file.read_text())
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']}, this klab reads {_FORMAT}")
        return Box(
            folder=folder,
            files=MappingProxyType({name: BoxFile(**entry) for name, entry in data["files"].items()}),
            **{key: data[key] for key in FACTS},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BoxError(
            f"the manifest of box {folder.name} is damaged",
            details=[f"{file}: {error}"],
            hint=f"rm -r {shlex.quote(str(folder))}",
        ) from error


def write_manifest(box: Box) -> None:
    """Write a box's manifest; the box exists from then on."""
    data: dict[str, Any] = {
        "format": _FORMAT,
        **facts(box),
        "files": {
            name: {"size": f.size, "mtime_ns": f.mtime_ns, "sha256": f.sha256} for name, f in sorted(box.files.items())
        },
    }
    write_atomic(box.folder / MANIFEST, json.dumps(data, indent=2) + "\n")


def describe_file(path: Path) -> BoxFile:
    """What the manifest says of a file as it is now."""
    stat = path.stat()
    return BoxFile(stat.st_size, stat.st_mtime_ns, digest_file(path))


def check_box(box: Box) -> None:
    """The quick check before a lab is made: each file is there, with the size and date it was left with.

    Raises:
        BoxError: one is not; `details` names each.
    """
    problems = []
    for name, expected in sorted(box.files.items()):
        try:
            stat = (box.folder / name).stat()
        except FileNotFoundError:
            problems.append(f"{name}: missing")
            continue
        if stat.st_size != expected.size:
            problems.append(f"{name}: {stat.st_size} bytes instead of {expected.size}")
        elif stat.st_mtime_ns != expected.mtime_ns:
            problems.append(f"{name}: was written to after the box was built")
    _raise(box, problems)


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
        provider: libvirt or virtualbox.

    Raises:
        BoxError: the box is damaged.
        ProgramError: the VMDK cannot be made.
        Conflict: another klab builds or puts a box.
    """
    check_box(box)
    if provider == "libvirt":
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
    for name, expected in sorted(box.files.items()):
        path = box.folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif (found := digest_file(path)) != expected.sha256:
            problems.append(f"{name}: SHA-256 is {found}, not {expected.sha256}")
    # The manifest itself might have been changed together with a file: the folder's name tells.
    if box.folder != folder_of(home, box.name, box.digest) or box.files[DISK].sha256 != box.digest:
        problems.append(f"{MANIFEST}: does not belong to {box.folder.name}")
    _raise(box, problems)


def put(home: Home, box: Box, fetch: Callable[[str, Path], None]) -> Box:
    """Put a box that comes from elsewhere into the store, unless it is there.

    It appears there when each of its files has been seen to be what its digest says. The box file for Vagrant is
    made here: it is the disk in another wrapping.

    Args:
        home: klab's folder.
        box: what is known of it; its folder does not matter, its files' dates neither.
        fetch: writes the file of that name to that path.

    Raises:
        BoxError: a file is not what its digest says.
        Conflict: another klab builds or puts a box.
    """
    place = folder_of(home, box.name, box.digest)
    with Cache(home.cache).lock():
        if (there := _whole(place, box.digest)) is not None:
            return there
        make_private(home.boxes)
        partial = place.with_name(place.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            files = {name: _fetched(fetch, name, partial / name, box) for name in PORTABLE if name in box.files}
            write_libvirt_box(partial / DISK, partial / LIBVIRT, box.virtual_mib)
            files[LIBVIRT] = describe_file(partial / LIBVIRT)
            write_manifest(replace(box, folder=partial, files=files))
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return replace(box, folder=place, files=files)


def _whole(place: Path, digest: str) -> Box | None:
    """The box in a folder, if it has that digest and nobody has touched its files."""
    try:
        found = read_box(place)
        check_box(found)
    except BoxError:
        return None
    return found if found.digest == digest else None


def _fetched(fetch: Callable[[str, Path], None], name: str, target: Path, box: Box) -> BoxFile:
    fetch(name, target)
    target.chmod(0o755 if name == KUBECTL else 0o644)
    found = describe_file(target)
    wanted = box.digest if name == DISK else box.files[name].sha256
    if found.sha256 != wanted:
        raise BoxError(
            f"the box {box.name} that comes here is damaged",
            details=[f"{name}: SHA-256 is {found.sha256}, not {wanted}"],
            hint="get the checkpoint anew",
        )
    return found


def remove(home: Home, box: Box) -> None:
    """Delete a box, and what Vagrant has of it.

    Raises:
        Conflict: a lab was made from it, or a checkpoint that `klab destroy` has kept needs it.
        HostError: Vagrant's part cannot be deleted; the box is still there then.
    """
    if users := _labs_of(home, box):
        raise Conflict(
            f"the box {box.name} ({box.short}) is in use",
            details=[f"lab {name}" for name in users],
            hint=f"klab destroy {users[0]}",
        )
    if kept := _kept_on(home, box):
        raise Conflict(
            f"checkpoints need the box {box.name} ({box.short})",
            details=[str(file) for file in kept],
            hint="klab checkpoints shows them; remove those that you no longer want",
        )
    forget_box(box.folder.name)
    # The manifest first: what is left after a kill is no box any more, and prune takes it.
    (box.folder / MANIFEST).unlink()
    shutil.rmtree(box.folder)


def prune(home: Home) -> list[str]:
    """Remove boxes that a newer build replaced and that no lab and no checkpoint uses, and what killed builds left.

    Returns:
        The names of the removed folders.

    Raises:
        Conflict: another klab builds or puts a box, and what is half there is its.
    """
    removed = []
    seen: set[str] = set()
    with Cache(home.cache).lock():
        for box in list_boxes(home):
            if box.name in seen and not _labs_of(home, box) and not _kept_on(home, box):
                remove(home, box)
                removed.append(box.folder.name)
            seen.add(box.name)
        for folder in sorted(home.boxes.glob("*/")):
            if _is_partial(folder) or not (folder / MANIFEST).exists():
                shutil.rmtree(folder)
                removed.append(folder.name)
    return removed


def folder_of(home: Home, name: str, digest: str) -> Path:
    """Where a box lies."""
    return home.boxes / f"{name}@{digest[:12]}"


def _labs_of(home: Home, box: Box) -> list[str]:
    """Labs whose record names this box by folder name, digest or, for the newest, by name."""
    names = {box.folder.name, box.digest, box.short}
    newest = next((b for b in list_boxes(home) if b.name == box.name), None)
    if newest == box:
        names |= {box.name}
    return [folder.name for folder in home.existing() if folder.record().box in names]


def kept_folder(home: Home, folder: str) -> Path:
    """Where checkpoints lie that need the box in that folder of the store; whoever removes the box looks here."""
    return home.checkpoints / folder


def _kept_on(home: Home, box: Box) -> list[Path]:
    return sorted(file for file in kept_folder(home, box.folder.name).glob("[!.]*") if file.is_file())


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


def _is_partial(folder: Path) -> bool:
    return folder.name.endswith(PARTIAL)


def _raise(box: Box, problems: list[str]) -> None:
    if problems:
        raise BoxError(
            f"the box {box.name} ({box.short}) is damaged",
            details=problems,
            hint=f"klab box rm {box.name} and klab box build {box.recipe} --kubernetes {box.kubernetes}",
        )
