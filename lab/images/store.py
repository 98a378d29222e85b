"""The images that this machine keeps for the nodes of its labs, present and future.

    KLAB_HOME/images/oci-layout
    KLAB_HOME/images/index.json            each image by its whole name, as org.opencontainers.image.ref.name
    KLAB_HOME/images/blobs/sha256/HEX      indexes, manifests, configurations and layers

An OCI image layout in which each blob stands once, however many images have it, so that the folder is a source for
another machine as well. Of an index only the image for the nodes' platform is there; the index itself is kept as it is,
so that its digest, which a manifest may name, stays the image's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import locks, records
from lab.boxes.cache import digest_file
from lab.boxes.images import NAME_ANNOTATION
from lab.boxes.recipe import VENDOR, VENDOR_LABEL
from lab.boxes.upstream.layout import MOST_BYTES, REF_ANNOTATION, Blob, Choice, Manifest, parse_image
from lab.errors import ImageError, Remedy
from lab.files import make_private, write_atomic
from lab.scenario.references import Reference, parse_reference
from lab.store import Home
from lab.text import shortened, visible

PLATFORM = ("linux", "amd64")
_PATIENCE = 3600.0  # another klab may be fetching gigabytes
_PARTIAL = ".partial"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Image:
    """One image, for the nodes' platform.

    `reference` is its whole name. `index` is the text of the index that the name stands for; empty where it stands for
    the manifest itself.
    """

    reference: Reference
    manifest: Manifest
    index: str = ""

    @property
    def hex(self) -> str:
        """SHA-256, in hex, of what the name stands for."""
        return hashlib.sha256(self.index.encode()).hexdigest() if self.index else self.manifest.hex

    @property
    def texts(self) -> dict[str, str]:
        """The manifests, by SHA-256 in hex: the index, where there is one, and the image's own."""
        return {self.hex: self.index or self.manifest.text, self.manifest.hex: self.manifest.text}

    @property
    def files(self) -> tuple[Blob, ...]:
        """All that a registry needs, each once: configuration, layers, manifests."""
        texts = (Blob(name, len(text.encode())) for name, text in self.texts.items())
        return tuple(dict.fromkeys((*self.manifest.blobs, *texts)))

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(blob.size for blob in self.files)


def image_of(reference: Reference, texts: Sequence[str]) -> Image | Choice:
    """An image by the texts that lead to it: its manifest alone, or its index and its manifest.

    Returns:
        The image; or, where only an index was given, the manifest that is needed as well.

    Raises:
        ValueError: they are not an image for the nodes, or do not have the digests that they should.
    """
    first, *others = texts
    if reference.hex and hashlib.sha256(first.encode()).hexdigest() != reference.hex:
        raise ValueError(f"it has another digest than {reference.digest}")
    found = parse_image(first)
    if isinstance(found, Manifest):
        return Image(reference, found)
    if not others:
        return found
    manifest = parse_image(others[0])
    if isinstance(manifest, Choice):
        raise ValueError("the index names another index for linux/amd64")
    if manifest.hex != found.hex:
        raise ValueError(f"the manifest sha256:{found.hex} is another one than its digest says")
    return Image(reference, manifest, first)


def parse_platform(text: str) -> str:
    """The platform of an image's configuration, such as linux/arm64.

    Raises:
        ValueError: it is not the configuration of an image.
    """
    data = records.parse(text)
    system, machine = data.get("os"), data.get("architecture")
    if not isinstance(system, str) or not isinstance(machine, str):
        raise ValueError("it names no platform: it is not a container image")
    return visible(shortened(f"{system}/{machine}", 80))


def parse_labels(text: str) -> dict[str, str]:
    """The labels of an image's configuration (image-spec, config.md); what is no label is passed over.

    Raises:
        ValueError: it is not the configuration of an image.
    """
    said = records.parse(text).get("config")
    labels = said.get("Labels") if isinstance(said, dict) else None
    found = labels.items() if isinstance(labels, dict) else ()
    return {name: value for name, value in found if isinstance(value, str)}


class Store:
    """The images in one folder of klab's.

    Args:
        home: klab's folder.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self.folder = home.images

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs" / "sha256"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder while it is changed; the kernel lets go when the process ends.

        Raises:
            HostError: another klab holds it, and does not end.
        """
        make_private(self.folder)
        with locks.locked(self.folder / ".lock", "the images that klab keeps", patience=_PATIENCE):
            yield

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Path]:
        """An empty folder for blobs that come, on the same file system; under `lock`."""
        folder = self.folder / _PARTIAL
        shutil.rmtree(folder, ignore_errors=True)  # what a kill has left
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def names(self) -> dict[Reference, str]:
        """What each image's name stands for: SHA-256 in hex. What is damaged in the index is passed over."""
        found = {}
        for entry in self._entries():
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                reference = parse_reference(entry["annotations"][REF_ANNOTATION])
                found[reference] = str(entry["digest"]).removeprefix("sha256:")
        return found

    def find(self, reference: Reference) -> Image | None:
        """An image, if all of it is here, by the sizes of its files; None otherwise."""
        digest = reference.hex or self.names().get(reference, "")
        return self.whole(reference, digest) if digest else None

    def whole(self, reference: Reference, digest: str) -> Image | None:
        """The image of a name and what it stood for once, if all of it is here, whatever the name stands for now."""
        try:
            found = image_of(reference, [first := self._text(digest)])
            if isinstance(found, Choice):
                found = image_of(reference, [first, self._text(found.hex)])
        except (OSError, ValueError):
            return None
        if isinstance(found, Choice) or found.hex != digest:
            return None
        return found if all(map(self.has, found.files)) else None

    def has(self, blob: Blob) -> bool:
        """Whether a blob is here, by the size of its file; it got its name when its digest was taken."""
        try:
            return (self.blobs / blob.hex).stat().st_size == blob.size
        except OSError:
            return False

    def is_own_build(self, image: Image) -> bool:
        """Whether an image that is here says of itself that klab has built it (`lab.boxes.recipe.VENDOR_LABEL`)."""
        try:
            labels = parse_labels(self._text(image.manifest.blobs[0].hex))
        except (OSError, ValueError):
            return False
        return labels.get(VENDOR_LABEL) == VENDOR

    def take(self, image: Image, came: Path, *, named: bool = True) -> None:
        """Put an image here, of which a folder has a file HEX for each blob that is not here yet; under `lock`.

        Args:
            image: the image.
            came: the folder.
            named: other labs get it by its name, too.

        Raises:
            ImageError: a blob is missing or another one, or the image is for another platform.
        """
        make_private(self.blobs)
        for blob in dict.fromkeys(image.manifest.blobs):
            if self.has(blob):
                continue
            file = came / blob.hex
            if not file.is_file() or digest_file(file) != blob.hex:
                raise ImageError(
                    f"the image {image.reference} is damaged",
                    details=[f"the blob sha256:{blob.hex} is missing, or another one"],
                    hint="get the file again, or fetch the image again",
                )
            file.replace(self.blobs / blob.hex)
        self._refuse_platform(image)
        for name, text in image.texts.items():
            write_atomic(self.blobs / name, text)
        write_atomic(self.folder / "oci-layout", '{"imageLayoutVersion":"1.0.0"}')
        if named:
            others = [entry for entry in self._entries() if _named(entry) != str(image.reference)]
            self._write([*others, _entry(image)])

    def _refuse_platform(self, image: Image) -> None:
        try:
            found = parse_platform(self._text(image.manifest.blobs[0].hex))
        except ValueError as error:
            raise ImageError(
                f"{image.reference} is not a container image",
                details=[visible(shortened(str(error)))],
                hint="a registry may hold other things under such a name, Helm's charts for example",
            ) from error
        if found != "/".join(PLATFORM):
            raise wrong_platform(str(image.reference), f"it is for {found}")

    def remove(self, references: Collection[Reference], kept: Iterable[str]) -> int:
        """Forget names, and remove the blobs that no other name needs and that are not kept; under `lock`.

        Args:
            references: the names.
            kept: blobs that labs need, by SHA-256 in hex.

        Returns:
            Bytes that were removed.
        """
        gone = set(map(str, references))
        self._write([entry for entry in self._entries() if _named(entry) not in gone])
        needed = set(kept)
        for reference, digest in self.names().items():
            if image := self.whole(reference, digest):
                needed |= {blob.hex for blob in image.files}
        freed = 0
        for file in self.blobs.glob("*"):
            if file.name not in needed:
                freed += file.stat().st_size
                file.unlink()
        return freed

    def _entries(self) -> list[Any]:
        try:
            found = records.parse((self.folder / "index.json").read_text(encoding="utf-8")).get("manifests")
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []

    def _write(self, entries: list[Any]) -> None:
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries}
        write_atomic(self.folder / "index.json", json.dumps(index, indent=2) + "\n")

    def _text(self, digest: str) -> str:
        return small_text(self.blobs / digest)


def small_text(file: Path) -> str:
    """A manifest, an index or a configuration, with the line ends that it has.

    Raises:
        ValueError: it is too large, or no UTF-8.
        OSError: it cannot be read.
    """
    with file.open("rb") as source:
        raw = source.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{file.name} has more than {MOST_BYTES >> 20} MiB")
    return raw.decode()


def wrong_platform(what: str, why: str) -> ImageError:
    """The error for an image that the nodes cannot run."""
    wanted = "/".join(PLATFORM)
    return ImageError(
        f"{what} has no image for {wanted}, which the nodes are",
        details=[why],
        hint=f"build or pull it with --platform {wanted}, and save it again",
    )


def _entry(image: Image) -> dict[str, Any]:
    name, text = image.hex, image.texts[image.hex]
    kind = image.manifest.kind
    if image.index:
        said = records.parse(text).get("mediaType")
        kind = said if isinstance(said, str) else _INDEX
    notes = {REF_ANNOTATION: str(image.reference), NAME_ANNOTATION: str(image.reference)}
    return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(text.encode()), "annotations": notes}


def _named(entry: Any) -> str:
    notes = entry.get("annotations") if isinstance(entry, dict) else None
    name = notes.get(REF_ANNOTATION) if isinstance(notes, dict) else None
    return name if isinstance(name, str) else ""


def remedy_load(lab: str = "", *words: str) -> Remedy:
    """What brings images to a lab's nodes, for a hint."""
    return Remedy("image load", lab=lab, options=words)
