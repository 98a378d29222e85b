"""Files and folders with images: OCI layouts, the same as an archive, and what docker save writes.

    docker save            manifest.json, configurations and layers; newer ones have an OCI layout as well
    podman save, buildx    the same, or an OCI layout (--format oci-archive, --output type=oci)

From an OCI layout klab takes the blobs as they are, so that digests stay; the other form has no manifest, and skopeo
makes one. Archives may be packed by gzip, bzip2 or xz. No file is written by a name of the archive's.
Shapes: github.com/opencontainers/image-spec, image-layout.md; github.com/moby/docker-image-spec, v1.3.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lab import process, records
from lab.boxes.images import NAME_ANNOTATION
from lab.boxes.upstream.layout import MOST_BYTES, REF_ANNOTATION, Choice
from lab.boxes.upstream.skopeo import complaint
from lab.errors import HostError, ImageError, LabError, NotFound, Remedy, UsageError
from lab.files import refuse_special
from lab.images.store import Image, Store, image_of, small_text, wrong_platform
from lab.scenario.references import Reference, parse_reference
from lab.text import shortened, visible

LAYOUT = "oci-layout"
INDEX = "index.json"
DOCKER = "manifest.json"
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BLOBS = "blobs/sha256/"
_HEX = frozenset("0123456789abcdef")
_BLOCK = 1 << 20
_PLAIN = "plain.tar"
# By how a file begins that each of them reads.
_PACKED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_MAGIC = max(map(len, _PACKED))
_SECONDS = 3600.0
FORMS = "klab reads what docker save and podman save write, OCI archives, and folders with an OCI layout"
# Where a registry cannot be asked from here.
SAVE = (
    "save it where it can be had (docker save -o FILE IMAGE), and ",
    Remedy("image load", options=("FILE",)),
)
_NAMING = "--name NAME:TAG names it"

Names = Callable[[list[str]], Reference]
Progress = Callable[[int], None]


@dataclass(slots=True)
class _Found:
    """What an archive has of the files that tell what it is: their texts; and its blobs, by SHA-256 in hex."""

    texts: dict[str, str] = field(default_factory=dict)
    blobs: set[str] = field(default_factory=set)


def is_place(word: str) -> bool:
    """Whether what a person names is meant as a file or a folder, and not as an image of a registry."""
    if word.startswith(("/", "./", "../", "~")) or word.lower().endswith(SUFFIXES):
        return True
    path = Path(word)
    with contextlib.suppress(OSError, ValueError):
        return path.is_file() or (path / LAYOUT).is_file()
    return False


def take_all(store: Store, path: Path, name: Reference | None, progress: Progress) -> list[Image]:
    """Take every image of a file or folder into the store, which is locked.

    Args:
        store: the images that this machine keeps.
        path: an archive, or a folder with an OCI layout.
        name: what to call the only image in it.
        progress: told how many bytes have come.

    Raises:
        NotFound: there is nothing of that name.
        UsageError: it is not an archive, or has an image without a name.
        ImageError: it holds no image, is damaged, or is for another platform.
        HostError: the disk is full.
    """
    if path.is_dir():
        return _of_layout(store, path, path, name)
    try:
        refuse_special(path, hint=FORMS)
        size = path.stat().st_size
    except FileNotFoundError:
        raise NotFound(f"there is no file {visible(str(path))}", hint=FORMS) from None
    refuse_full(store, size)
    with store.incoming() as came, _readable(path):
        found = _unpacked(store, path, came, progress)
        if LAYOUT in found.texts and INDEX in found.texts:
            for text in (LAYOUT, INDEX):
                (came / text).write_text(found.texts[text], encoding="utf-8")
            return _of_layout(store, came, path, name)
    if DOCKER in found.texts:
        return _of_docker(store, path, found.texts[DOCKER], name)
    raise _no_images(path, f"it has neither {INDEX} nor {DOCKER}")


def refuse_full(store: Store, size: int) -> None:
    """Make sure that so many bytes fit beside what this machine keeps.

    Raises:
        HostError: they do not.
    """
    there = next(path for path in (store.folder, *store.folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise HostError(
            "there is no room on this machine for the images",
            details=[f"{there} has {free >> 20} MiB free; {size >> 20} MiB are needed"],
            hint=(Remedy("image prune"), " removes those that no lab has; KLAB_HOME names a folder on a larger disk"),
        )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what is wrong with an archive into an error.

    Raises:
        UsageError: it is not an archive.
        ImageError: it is damaged.
    """
    try:
        yield
    except tarfile.ReadError as error:
        zstd = path.name.lower().endswith((".zst", ".zstd"))
        raise UsageError(
            f"{visible(str(path))} is not an image, or is cut off",
            details=[visible(shortened(str(error)))],
            hint="unpack it first: zstd -d" if zstd else FORMS,
        ) from error
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _damaged(path, str(error)) from error


def _unpacked(store: Store, path: Path, came: Path, progress: Progress) -> _Found:
    """Put an archive's blobs into a folder, each by its SHA-256, where the store lacks them."""
    found = _Found()
    with _unpacking(path, progress) as source, tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                continue
            if name in {LAYOUT, INDEX, DOCKER}:
                found.texts[name] = _small(content, name)
            elif (digest := name.removeprefix(_BLOBS)) != name and len(digest) == 64 and set(digest) <= _HEX:
                found.blobs.add(digest)
                place = store.blobs / digest
                if not (place.is_file() and place.stat().st_size == member.size):
                    with (came / digest).open("wb") as out:
                        shutil.copyfileobj(content, out, _BLOCK)
    return found


class _Counting(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, file: io.RawIOBase, progress: Progress) -> None:
        super().__init__()
        self._file, self._progress = file, progress

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = self._file.readinto(buffer) or 0
        self._progress(size)
        return size


@contextlib.contextmanager
def _unpacking(path: Path, progress: Progress) -> Iterator[IO[bytes]]:
    """The content of a file, unpacked by what it begins with."""
    with path.open("rb", buffering=0) as raw, io.BufferedReader(_Counting(raw, progress), _BLOCK) as file:
        begins = file.peek(_MAGIC)[:_MAGIC]
        opener = next((opened for magic, opened in _PACKED.items() if begins.startswith(magic)), None)
        if opener is None:
            yield file
            return
        with opener(file) as source:
            yield source


def _small(content: IO[bytes], name: str) -> str:
    raw = content.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise ValueError(f"{name} has more than {MOST_BYTES >> 20} MiB")
    return raw.decode()


# --- an OCI layout ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a layout's index: SHA-256 in hex of what it names, and the names that it may have."""

    hex: str
    names: tuple[str, ...]


def parse_layout(text: str) -> list[Entry]:
    """The images of a layout's index.json.

    Raises:
        ValueError: it is not an index of a layout.
    """
    manifests = records.parse(text).get("manifests")
    if not isinstance(manifests, list):
        raise ValueError("it names no images")
    return [_entry(each) for each in manifests]


def _entry(data: Any) -> Entry:
    digest = data.get("digest") if isinstance(data, dict) else None
    hexadecimal = digest.removeprefix("sha256:") if isinstance(digest, str) else ""
    if len(hexadecimal) != 64 or not set(hexadecimal) <= _HEX:
        raise ValueError("an image of it has no SHA-256 digest")
    notes = data.get("annotations")
    given = [notes.get(key) for key in (NAME_ANNOTATION, REF_ANNOTATION)] if isinstance(notes, dict) else []
    return Entry(hexadecimal, tuple(each for each in given if isinstance(each, str)))


def _of_layout(store: Store, folder: Path, path: Path, name: Reference | None) -> list[Image]:
    """Take the images of a layout; its blobs are in FOLDER/blobs/sha256, or beside index.json where it was unpacked."""
    blobs = folder / _BLOBS if folder is path else folder
    try:
        small_text(folder / LAYOUT)
        entries = parse_layout(small_text(folder / INDEX))
    except FileNotFoundError as error:
        raise _no_images(path, f"it has no {Path(str(error.filename)).name}") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not entries:
        raise _no_images(path, "its index names none")
    wanted = [(entry, _named(path, list(entry.names), name, len(entries))) for entry in entries]
    return [_taken(store, blobs, path, entry.hex, reference) for entry, reference in wanted]


def _taken(store: Store, blobs: Path, path: Path, digest: str, reference: Reference) -> Image:
    def text(name: str) -> str:
        place = blobs / name
        return small_text(place if place.is_file() else store.blobs / name)

    try:
        found = image_of(reference, [first := text(digest)])
        if isinstance(found, Choice):
            found = image_of(reference, [first, text(found.hex)])
    except FileNotFoundError as error:
        if Path(str(error.filename)).name == digest:
            raise _damaged(path, f"the blob sha256:{digest} is missing") from None
        raise wrong_platform(visible(str(path)), "its index names one whose manifest is not in it") from None
    except ValueError as error:
        if "linux/amd64" in str(error):
            raise wrong_platform(visible(str(path)), str(error)) from error
        raise _damaged(path, str(error)) from error
    if isinstance(found, Choice) or found.hex != digest:
        raise _damaged(path, f"the blob sha256:{digest} is another one than its digest says")
    if blobs == store.blobs:  # klab's own folder, named by its path
        return found
    with _borrowed(store, blobs, found) as came:
        store.take(found, came)
    return found


@contextlib.contextmanager
def _borrowed(store: Store, blobs: Path, image: Image) -> Iterator[Path]:
    """A folder from which the store may take an image's blobs: one that was unpacked, or copies of a person's own."""
    if blobs.is_relative_to(store.folder):
        yield blobs
        return
    missing = [blob for blob in image.manifest.blobs if not store.has(blob)]
    refuse_full(store, sum(blob.size for blob in missing))
    with store.incoming() as came:
        for blob in missing:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(blobs / blob.hex, came / blob.hex)
        yield came


# --- docker save --------------------------------------------------------------------------------------


def parse_saved(text: str) -> list[list[str]]:
    """The names of each image in manifest.json of docker save, in order; one may have none, or several.

    Raises:
        ValueError: it is not such a file.
    """
    data = records.parse(f'{{"images":{text}}}').get("images")
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise ValueError(f"{DOCKER} lists no images")
    names = [each.get("RepoTags") for each in data]
    return [[tag for tag in each if isinstance(tag, str)] if isinstance(each, list) else [] for each in names]


def _of_docker(store: Store, path: Path, text: str, name: Reference | None) -> list[Image]:
    try:
        names = parse_saved(text)
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not names:
        raise _no_images(path, f"{DOCKER} lists none")
    found = []
    with store.incoming() as came:
        _plain(path, came / _PLAIN)
        for number, tags in enumerate(names):
            references = [_named(path, [tag], name, len(names)) for tag in tags or ()]
            references = references or [_named(path, [], name, len(names))]
            target = came / str(number)
            _converted(path, came, number)
            made = image_of(references[0], [small_text(target / DOCKER)])
            assert not isinstance(made, Choice)  # noqa: S101 - skopeo has made it of one image
            for reference in dict.fromkeys(references):
                image = Image(reference, made.manifest)
                store.take(image, target)
                found.append(image)
    return found


def _plain(path: Path, target: Path) -> None:
    """The archive, unpacked: skopeo fails on some that are packed, and on some names of files."""
    with _unpacking(path, lambda _size: None) as source:
        if isinstance(source, io.BufferedReader):
            target.symlink_to(path.resolve())
            return
        with target.open("wb") as out:
            shutil.copyfileobj(source, out, _BLOCK)


def _converted(path: Path, came: Path, number: int) -> None:
    """Let skopeo write an image of an archive into a folder of its number: a manifest, and a file HEX for each blob."""
    argv = ["skopeo", "--override-os", "linux", "copy", f"docker-archive:{_PLAIN}:@{number}", f"dir:{number}"]
    done = process.run(argv, timeout=_SECONDS, check=False, cwd=came)
    if done.code == 0:
        return
    why = complaint(done.stderr)
    if "no space left" in why.lower():
        raise HostError(
            "there is no room on this machine for the images",
            details=[why],
            hint=(Remedy("image prune"), " removes those that no lab has; skopeo writes to /var/tmp as well"),
        )
    raise _damaged(path, why)


# --- names --------------------------------------------------------------------------------------------


def _named(path: Path, given: list[str], name: Reference | None, count: int) -> Reference:
    """What to call an image: as the person says, else by the first whole name that it has.

    Raises:
        UsageError: neither; or the person names one of several.
    """
    if name is not None:
        if count > 1:
            raise UsageError(f"{visible(str(path))} holds {count} images, and --name is for one", hint="leave it out")
        return name
    for text in given:
        # A tag alone ("latest") is how layouts name an image within themselves.
        if "/" in text or ":" in text:
            with contextlib.suppress(ValueError):
                return parse_reference(text)
    said = ", ".join(visible(shortened(each, 80)) for each in given) or "none"
    raise UsageError(
        f"{visible(str(path))} holds an image without a name",
        details=[f"its name there: {said}"],
        hint=_NAMING if count == 1 else "save it again with a name and a tag",
    )


def _no_images(path: Path, why: str) -> LabError:
    return UsageError(f"{visible(str(path))} is not an image", details=[why], hint=FORMS)


def _damaged(path: Path, why: str) -> ImageError:
    return ImageError(
        f"the images in {visible(str(path))} are damaged",
        details=[visible(shortened(why))],
        hint="save or copy it again",
    )
