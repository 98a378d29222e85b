"""Removing boxes: only those that no lab and no bundle needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.boxes.cache import Cache
from lab.boxes.manifest import MANIFEST, Box
from lab.boxes.store import is_partial, list_boxes
from lab.errors import Conflict, Remedy
from lab.machines.providers import PROVIDERS
from lab.store import Home


def remove(home: Home, box: Box) -> None:
    """Delete a box, and what the providers have of it.

    Raises:
        Conflict: a lab was made from it, or a bundle that `klab destroy` has kept needs it.
        HostError, MachineError: a provider's part cannot be deleted; the box is still there then.
    """
    if users := _labs_of(home, box):
        raise Conflict(
            f"the box {box.name} ({box.short}) is in use",
            details=[f"lab {name}" for name in users],
            hint=Remedy("destroy", lab=users[0]),
        )
    if kept := _kept_on(home, box):
        raise Conflict(
            f"bundles need the box {box.name} ({box.short})",
            details=[str(file) for file in kept],
            hint=(Remedy("bundles"), " shows them; remove those that are no longer needed"),
        )
    for provider in PROVIDERS.values():
        provider.forget_box(home, box.folder.name)
    # The manifest first: what is left after a kill is not a box any more, and prune removes it.
    (box.folder / MANIFEST).unlink()
    shutil.rmtree(box.folder)


def prune(home: Home) -> list[str]:
    """Remove what no lab and no bundle uses: boxes that a newer build replaced, or that came with a bundle.

    What killed builds left goes, too. A box from a bundle replaces none that was built here.

    Returns:
        The names of the removed folders.

    Raises:
        Conflict: another klab builds or puts a box, and what is half there is its.
    """
    removed = []
    seen: set[str] = set()
    with Cache(home.cache).lock():
        for box in list_boxes(home):
            if (box.origin or box.name in seen) and not _labs_of(home, box) and not _kept_on(home, box):
                remove(home, box)
                removed.append(box.folder.name)
            if not box.origin:
                seen.add(box.name)
        for folder in sorted(home.boxes.glob("*/")):
            if is_partial(folder) or not (folder / MANIFEST).exists():
                shutil.rmtree(folder)
                removed.append(folder.name)
    return removed


def _labs_of(home: Home, box: Box) -> list[str]:
    """The labs that use this box: their record names it by folder name, digest or, for the newest, by name."""
    names = {box.folder.name, box.digest, box.short}
    newest = next((b for b in list_boxes(home) if b.name == box.name and not b.origin), None)
    if newest == box:
        names |= {box.name}
    return [folder.name for folder in home.existing() if not names.isdisjoint(folder.record().boxes)]


def kept_folder(home: Home, folder: str) -> Path:
    """Where bundles lie that need the box in that folder of the store; `remove` and `prune` look here."""
    return home.checkpoints / folder


def _kept_on(home: Home, box: Box) -> list[Path]:
    return sorted(file for file in kept_folder(home, box.folder.name).glob("[!.]*") if file.is_file())
