"""The images that klab has brought to a lab's nodes: LAB/images.json, and the part of a bundle that says the same.

What a node must have for an image is written down here, so that an image can be looked for and removed whatever this
machine still keeps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab import records
from lab.components.runtime.base import repository_of
from lab.errors import LabError
from lab.files import write_atomic
from lab.images.store import Image, Store, remedy_load
from lab.render.images import NodeImage
from lab.scenario.references import Reference, parse_reference
from lab.store import LabFolder

FORMAT = 1
MOST_IMAGES = 1000
_HEX = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 1 << 40
_MOST_FILES = 1000  # of one image; a runtime mounts at most some 500 layers


@dataclass(frozen=True, slots=True)
class LabImage:
    """One image of a lab.

    `ref` is its whole name. `revisions` are its manifests, what the name stands for first: SHA-256 in hex. `files` has
    the size of each file of the image, manifests included, in bytes, by SHA-256 in hex. `own_build`: klab has built it.
    """

    ref: str
    revisions: tuple[str, ...]
    files: Mapping[str, int]
    own_build: bool = field(default=False, compare=False)  # follows from the files

    @classmethod
    def of(cls, image: Image, store: Store | None = None) -> LabImage:
        """An image; by its configuration in the store, where that is given, klab's own build or not."""
        files = {blob.hex: blob.size for blob in image.files}
        own_build = store is not None and store.is_own_build(image)
        return cls(str(image.reference), tuple(image.texts), files, own_build)

    @property
    def reference(self) -> Reference:
        return parse_reference(self.ref)

    @property
    def digest(self) -> str:
        """What the name stands for: sha256:HEX."""
        return f"sha256:{self.revisions[0]}"

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(self.files.values())

    @property
    def on_node(self) -> NodeImage:
        """How a node's registry has it."""
        reference = self.reference
        blobs = tuple(name for name in self.files if name not in self.revisions)
        name = f"{repository_of(reference.registry)}/{reference.repository}"
        return NodeImage(self.ref, name, reference.tag, self.revisions, blobs)

    def serves(self, reference: Reference) -> bool:
        """Whether a node that has this image can be asked for another name of it."""
        own = self.reference
        return own == reference or (own.name == reference.name and reference.hex in self.revisions)


def check_images(images: Iterable[LabImage]) -> tuple[LabImage, ...]:
    """The same images, if klab may have written them.

    Raises:
        ValueError: a value is invalid; the message names it.
    """
    found = tuple(images)
    if len(found) > MOST_IMAGES:
        raise ValueError(f"there are {len(found)} images; at most {MOST_IMAGES} are possible")
    for image in found:
        reference = parse_reference(image.ref)
        if str(reference) != image.ref:
            raise ValueError(f"{image.ref!r} is not the whole name of an image")
        _check_files(image, reference)
    if len({image.ref for image in found}) < len(found):
        raise ValueError("an image is listed twice")
    return found


def _check_files(image: LabImage, reference: Reference) -> None:
    if not 0 < len(image.revisions) <= 2 or not 1 < len(image.files) <= _MOST_FILES:
        raise ValueError(f"{image.ref} has {len(image.revisions)} manifests and {len(image.files)} files")
    for name, size in image.files.items():
        if _HEX.fullmatch(name) is None or not 0 < size < _MOST_BYTES:
            raise ValueError(f"{image.ref} has a file {name!r} of {size} bytes")
    if not set(image.revisions) < image.files.keys():
        raise ValueError(f"{image.ref} lacks its manifest")
    if reference.hex and reference.hex != image.revisions[0]:
        raise ValueError(f"{image.ref} stands for another digest")


def to_data(images: Iterable[LabImage]) -> list[dict[str, Any]]:
    """Images as JSON values; that one is no own build is left out, for an older klab that knows of none."""
    return [_as_value(image) for image in images]


def _as_value(image: LabImage) -> dict[str, Any]:
    said = {"ref": image.ref, "revisions": list(image.revisions), "files": dict(image.files)}
    return {**said, "own_build": True} if image.own_build else said


def from_data(data: object) -> tuple[LabImage, ...]:
    """Read what `to_data` gave; from anyone.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise ValueError("images is not a list of objects")
    return check_images(records.build(LabImage, each) for each in data)


def from_json(text: str) -> tuple[LabImage, ...]:
    """Read images.json.

    Raises:
        ValueError: it is damaged, or of another klab's format.
    """
    data = records.parse(text)
    if (found := records.pop_format(data)) != FORMAT:
        raise ValueError(f"format {found}, this klab reads {FORMAT}")
    return from_data(data.get("images"))


def images_of(folder: LabFolder) -> tuple[LabImage, ...]:
    """The images that klab has brought to a lab's nodes, in the order of their names.

    Raises:
        LabError: the file is damaged.
    """
    try:
        return from_json(folder.images.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise LabError(
            f"the list of the images of lab {folder.name!r} is damaged",
            details=[f"{folder.images}: {error}"],
            hint=("remove that file; ", remedy_load(folder.name, "IMAGE"), " writes it again, for each image"),
        ) from error


def keep(folder: LabFolder, images: Iterable[LabImage]) -> None:
    """Write down a lab's images."""
    ordered = sorted(images, key=lambda image: image.ref)
    write_atomic(folder.images, json.dumps({"format": FORMAT, "images": to_data(ordered)}, indent=1) + "\n")


def add(folder: LabFolder, images: Iterable[LabImage]) -> tuple[LabImage, ...]:
    """Write down further images of a lab, in the place of those of the same names; returns all of them."""
    found = {image.ref: image for image in (*images_of(folder), *images)}
    keep(folder, found.values())
    return images_of(folder)
