"""Which images a box brings, by what its manifest says; before it is built, by its recipe."""

from __future__ import annotations

from collections.abc import Mapping

from lab.boxes.manifest import Box
from lab.boxes.recipe import load_recipe
from lab.boxes.store import box_of, list_boxes
from lab.scenario.references import Reference, parse_reference
from lab.store import Home


def images_of_box(home: Home, name: str, kubernetes: str, folder: str = "") -> Mapping[Reference, str]:
    """The images in a box, each with the digest of its manifest as sha256:HEX; without one where nobody knows yet.

    Args:
        home: klab's folder.
        name: the recipe's name: debian-13.
        kubernetes: a full version; empty for a cloud image, which holds none.
        folder: the box's folder in the store, where it is a certain one.

    Raises:
        NotFound, BoxError: there is no such recipe.
    """
    if not kubernetes:
        return {}
    found = box_of(home, folder) if folder else _built(home, name, kubernetes)
    if found is not None and found.made_from is not None:
        return {parse_reference(ref): digest for ref, digest in found.made_from.images.items()}
    return {parse_reference(image.ref): "" for image in load_recipe(name, kubernetes).images}


def _built(home: Home, name: str, kubernetes: str) -> Box | None:
    return next((box for box in list_boxes(home) if (box.recipe, box.kubernetes) == (name, kubernetes)), None)


def box_has(images: Mapping[Reference, str], wanted: Reference) -> bool:
    """Whether a node of a box can be asked for an image, by a tag or by the digest of its manifest."""
    if wanted in images:
        return True
    return bool(wanted.digest) and any(
        each.name == wanted.name and digest == wanted.digest for each, digest in images.items()
    )
