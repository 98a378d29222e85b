"""What Vagrant keeps for one person, of all their projects: its boxes.

klab looks into them by itself, because a Vagrant takes seconds to begin. Source: Vagrant 2.3.4,
lib/vagrant/box_collection.rb.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from lab import locks
from lab.errors import HostError
from lab.files import make_private

# A class that begins at the same time waits for the one that adds the box; for several boxes, one after another.
LOCK_SECONDS = 1800.0


def vagrant_home() -> Path:
    """Vagrant's folder: VAGRANT_HOME where it is set, else ~/.vagrant.d."""
    return Path(os.environ.get("VAGRANT_HOME") or "~/.vagrant.d").expanduser()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Let no other klab of this person change Vagrant's boxes meanwhile; raises HostError as `lab.locks.locked`."""
    make_private(vagrant_home())
    with locks.locked(vagrant_home() / "klab.lock", "Vagrant's boxes", patience=LOCK_SECONDS):
        yield


def box_name(folder: str, file: str = "") -> str:
    """What Vagrant calls the box of klab's in this folder. The folder carries a digest: a name is one content.

    Args:
        folder: the box's, in klab's store.
        file: the .box file, where there are several.
    """
    return "-".join(("klab/" + folder.replace("@", "-"), *([file.removesuffix(".box")] if file else [])))


def sized_box(disk: int) -> str:
    """The name of the .box file for VirtualBox with a disk of so many GiB, in a box's folder."""
    return f"virtualbox-{disk}g.box"


def holds(name: str, version: str, provider: str, files: Collection[str]) -> bool:
    """Whether Vagrant has a box with these files, and what they link to is there: one built again may lie elsewhere."""
    # Vagrant 2.4 puts a folder of the architecture in between.
    found = list((_box_folder(name) / version / provider).rglob("*"))
    return {*files} <= {file.name for file in found} and all(file.exists() for file in found)


def entries(folder: str, file: str = "") -> list[Path]:
    """Where Vagrant has the boxes of klab's in this folder; arguments as `box_name`, with * for any .box files."""
    plain = _box_folder(box_name(folder, file))
    return sorted(entry for entry in plain.parent.glob(plain.name) if entry.is_dir())


def forget(entry: Path) -> None:
    """Delete what Vagrant has of a box: links, or a copy.

    Raises:
        HostError: it cannot be deleted.
    """
    try:
        shutil.rmtree(entry)
    except OSError as error:
        raise HostError(
            f"Vagrant's entry of the box {entry.name} cannot be removed",
            details=[str(error)],
            hint=f"remove {entry}, as the user it belongs to, and try again",
        ) from error


def _box_folder(name: str) -> Path:
    return vagrant_home() / "boxes" / name.replace("/", "-VAGRANTSLASH-")
