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

PROVIDERS = ("libvirt", "virtualbox")
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


def box_name(folder: str, provider: str) -> str:
    """What Vagrant calls the box of klab's in this folder. The folder carries a digest: a name is one content."""
    return f"klab/{folder.replace('@', '-')}" + ("" if provider == "libvirt" else f"-{provider}")


def holds(name: str, version: str, provider: str, files: Collection[str]) -> bool:
    """Whether Vagrant has a box with these files, and what they link to is there: one built again may lie elsewhere."""
    # Vagrant 2.4 puts a folder of the architecture in between.
    found = list((_box_folder(name) / version / provider).rglob("*"))
    return {*files} <= {file.name for file in found} and all(file.exists() for file in found)


def forget_box(folder: str) -> None:
    """Delete what Vagrant has of the box of klab's in this folder, for any provider: links, or a copy. Idempotent.

    Raises:
        HostError: it cannot be deleted.
    """
    for provider in PROVIDERS:
        entry = _box_folder(box_name(folder, provider))
        try:
            if entry.is_dir():
                shutil.rmtree(entry)
        except OSError as error:
            raise HostError(
                f"Vagrant's entry of the box {folder} cannot be removed",
                details=[str(error)],
                hint=f"remove {entry}, as the user it belongs to, and try again",
            ) from error


def _box_folder(name: str) -> Path:
    return vagrant_home() / "boxes" / name.replace("/", "-VAGRANTSLASH-")
