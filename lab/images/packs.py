"""Images that are made here, where no registry can be asked: of add-ons, compiled; of lessons, from Debian packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.boxes.host import given_back
from lab.boxes.packs import build_own, build_pack
from lab.boxes.recipe import Pack, Recipe
from lab.images.archive import take_all
from lab.images.sources import Tell
from lab.images.store import Image, Store
from lab.scenario.references import Reference
from lab.store import Home


def take_compiled(home: Home, pack: Pack, box: Recipe, tell: Tell) -> list[Image]:
    """Compile an add-on's images and have them in the store.

    Raises:
        As `build_pack` and `take_all`.
    """
    with given_back(home):
        return _taken(home, build_pack(home, pack, box, tell))


def take_own_builds(home: Home, references: Sequence[Reference], box: Recipe, tell: Tell) -> list[Image]:
    """Build images of lessons from Debian packages, and have them in the store under these names.

    Raises:
        As `build_own` and `take_all`.
    """
    with given_back(home):
        return _taken(home, build_own(home, references, box, tell))


def _taken(home: Home, layout: Path) -> list[Image]:
    store = Store(home)
    with store.lock():
        return take_all(store, layout, None, lambda _: None)
