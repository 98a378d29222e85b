"""Images of add-ons that klab knows by name: compiled here, where no registry has been asked for them."""

from __future__ import annotations

from lab.boxes.host import given_back
from lab.boxes.packs import build_pack
from lab.boxes.recipe import Pack, Recipe
from lab.images.archive import take_all
from lab.images.sources import Tell
from lab.images.store import Image, Store
from lab.store import Home


def take_compiled(home: Home, pack: Pack, box: Recipe, tell: Tell) -> list[Image]:
    """Compile an add-on's images and have them in the store.

    Raises:
        As `build_pack` and `take_all`.
    """
    with given_back(home):
        layout = build_pack(home, pack, box, tell)
        store = Store(home)
        with store.lock():
            return take_all(store, layout, None, lambda _: None)
