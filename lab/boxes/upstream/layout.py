"""Images as upstream made them, in an OCI image layout: what a download leaves, and what a folder or stick brings.

    FOLDER/images/oci-layout
    FOLDER/images/index.json            each image by its whole name, as org.opencontainers.image.ref.name
    FOLDER/images/blobs/sha256/HEX      manifests, configurations and layers, bytes as upstream has them

Shapes: github.com/opencontainers/image-spec (image-layout.md, image-index.md), distribution's manifest-v2-2.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import records
from lab.boxes.cache import digest_file
from lab.boxes.images import NAME_ANNOTATION, Layout
from lab.errors import BoxError
from lab.files import write_atomic
from lab.text import shortened, visible

REF_ANNOTATION = "org.opencontainers.image.ref.name"
MOST_BYTES = 4 << 20  # of a manifest or an index (distribution specification: registries take 4 MiB)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PLATFORM = ("linux", "amd64")


@dataclass(frozen=True, slots=True)
class Blob:
    """A part of an image: SHA-256 in hex, and bytes."""

    hex: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image's manifest, as text; `blobs` are its configuration and its layers."""

    text: str
    kind: str
    blobs: tuple[Blob, ...]

    @property
    def hex(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs)


@dataclass(frozen=True, slots=True)
class Choice:
    """One manifest of an index: SHA-256 in hex."""

    hex: str


def parse_image(text: str) -> Manifest | Choice:
    """A manifest; or of an index the manifest for Linux on x86-64.

    Raises:
        ValueError: it is neither.
    """
    data = records.parse(text)
    if isinstance(data.get("manifests"), list):
        for entry in data["manifests"]:
            platform = entry.get("platform") if isinstance(entry, dict) else None
            if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == _PLATFORM:
                return Choice(_blob(entry).hex)
        raise ValueError("the index has no image for linux/amd64")
    layers, kind = data.get("layers"), data.get("mediaType", "application/vnd.oci.image.manifest.v1+json")
    if not isinstance(layers, list) or not isinstance(kind, str):
        raise ValueError("it is no manifest of an image")
    return Manifest(text, kind, tuple(_blob(entry) for entry in (data.get("config"), *layers)))


def _blob(entry: Any) -> Blob:
    digest, size = (entry.get("digest"), entry.get("size")) if isinstance(entry, dict) else (None, None)
    named = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if named is None or type(size) is not int or not 0 <= size < 1 << 40:
        raise ValueError("a part of it has no SHA-256 digest, or no size")
    return Blob(named[1], size)


def parse_index(text: str) -> dict[str, str]:
    """The images of a layout: whole name to SHA-256 of what it names, in hex.

    Raises:
        ValueError: it is no index of a layout.
    """
    manifests = records.parse(text).get("manifests")
    if not isinstance(manifests, list):
        raise ValueError("it names no images")
    return {name: _blob(entry).hex for entry in manifests if (name := _named(entry))}


def _named(entry: Any) -> str:
    """The whole name that an entry of an index gives to an image; empty where it gives none."""
    notes = entry.get("annotations") if isinstance(entry, dict) else None
    name = notes.get(REF_ANNOTATION) if isinstance(notes, dict) else None
    return name if isinstance(name, str) else ""


def _entries(index: Path) -> list[Any]:
    """The images of a layout of klab's own; none where its index is damaged: they are then named again."""
    try:
        found = records.parse(_text(index)).get("manifests")
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder with images: FOLDER/images."""

    folder: Path

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs" / "sha256"

    def manifest(self, ref: str) -> Manifest | None:
        """The manifest of an image by its whole name; None where it is not here.

        Raises:
            BoxError: what is here is damaged.
        """
        index = self.folder / "index.json"
        try:
            digest = parse_index(_text(index)).get(ref) if index.is_file() else None
            if digest is None:
                return None
            found = parse_image(self._manifest_text(digest))
            if isinstance(found, Choice):
                found = parse_image(self._manifest_text(found.hex))
        except (OSError, ValueError) as error:
            raise self._damaged(ref, str(error)) from error
        if isinstance(found, Choice):
            raise self._damaged(ref, "an index names another index")
        return found

    def _manifest_text(self, digest: str) -> str:
        text = _text(self.blobs / digest)
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError(f"{self.blobs / digest} has another SHA-256 than its name says")
        return text

    def holds(self, manifest: Manifest) -> bool:
        """Whether every blob of an image is here, byte for byte."""
        files = ((self.blobs / blob.hex, blob.hex) for blob in manifest.blobs)
        return all(file.is_file() and digest_file(file) == digest for file, digest in files)

    def take(self, ref: str, manifest: Manifest, came: Path) -> None:
        """Move an image's blobs here.

        Args:
            ref: its whole name, for a person.
            manifest: its manifest.
            came: a folder with a file HEX for each blob.

        Raises:
            BoxError: a blob is missing or another one.
        """
        self.blobs.mkdir(parents=True, exist_ok=True)
        for blob in dict.fromkeys(manifest.blobs):
            file = came / blob.hex
            if not file.is_file() or digest_file(file) != blob.hex:
                raise self._damaged(ref, f"the blob {blob.hex} is missing, or another one")
            file.replace(self.blobs / blob.hex)

    def file(self, manifest: Manifest, path: str) -> bytes | None:
        """A regular file in an image whose blobs are here; None where it has none by that path, or is packed otherwise.

        Args:
            manifest: the image.
            path: usr/local/bin/etcdctl.
        """
        for blob in reversed(manifest.blobs[1:]):
            with contextlib.suppress(tarfile.TarError, OSError), tarfile.open(self.blobs / blob.hex) as layer:
                for member in layer:
                    if member.name.removeprefix("./") == path and (source := layer.extractfile(member)):
                        return source.read()
        return None

    def name(self, ref: str, manifest: Manifest) -> None:
        """Let a whole name stand for an image whose blobs are here."""
        write_atomic(self.blobs / manifest.hex, manifest.text)
        write_atomic(self.folder / "oci-layout", '{"imageLayoutVersion":"1.0.0"}')
        index = self.folder / "index.json"
        others = [entry for entry in _entries(index) if _named(entry) != ref]
        entry = {**descriptor(manifest), "annotations": {REF_ANNOTATION: ref, NAME_ANNOTATION: ref}}
        write_atomic(index, json.dumps({"schemaVersion": 2, "manifests": [*others, entry]}, indent=2) + "\n")

    def _damaged(self, ref: str, why: str) -> BoxError:
        return BoxError(
            f"the image {ref} in {self.folder} is damaged",
            details=[visible(shortened(why))],
            hint="remove that folder, or copy it again; a build then fetches what is missing",
        )


def descriptor(manifest: Manifest) -> dict[str, Any]:
    """What stands for a manifest in an index."""
    return {"mediaType": manifest.kind, "digest": f"sha256:{manifest.hex}", "size": len(manifest.text.encode())}


class MixedLayout(Layout):
    """The layout of a box's images, of which some are upstream's own."""

    def add_upstream(self, ref: str, manifest: Manifest, shelf: Shelf) -> None:
        """Add an image as upstream made it, whose blobs the shelf holds."""
        for blob in manifest.blobs:
            if not (target := self._blobs / blob.hex).exists():
                os.link(shelf.blobs / blob.hex, target)
        (self._blobs / manifest.hex).write_bytes(manifest.text.encode())
        tag = ref.rpartition(":")[2]
        self._index.append({**descriptor(manifest), "annotations": {NAME_ANNOTATION: ref, REF_ANNOTATION: tag}})


def _text(file: Path) -> str:
    """A small file, with the line ends that it has.

    Raises:
        ValueError: it is too large, or no UTF-8.
        OSError: it cannot be read.
    """
    with file.open("rb") as source:
        raw = source.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES >> 20} MiB")
    return raw.decode()
