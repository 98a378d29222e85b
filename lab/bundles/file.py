"""Reading a bundle's file; `lab.bundles.layout` describes it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from lab.bundles.format import Bundle, Member, damaged, from_json
from lab.bundles.layout import MANIFEST, MODE, SECTOR, SIGNATURE, beginning, closing, header, padding, span
from lab.bundles.pack import unpack
from lab.bundles.signature import MOST_BYTES as MOST_SIGNATURE
from lab.errors import NotFound, Remedy, UsageError
from lab.files import refuse_special

BLOCK = 1 << 20
_MOST_MANIFEST = 16 << 20

OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A bundle in a file.

    `manifest` are the bytes of its manifest, whose SHA-256 identifies the whole file. `signature` is that of the
    manifest, empty where there is none.
    """

    path: Path
    bundle: Bundle
    manifest: bytes
    signature: bytes = b""

    @property
    def digest(self) -> str:
        """The SHA-256 of the manifest, in hex."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def start(self) -> int:
        """Where its first member begins."""
        return len(beginning(self.manifest))

    @property
    def end(self) -> int:
        """Where its last member ends, the signature apart."""
        return self.start + sum(map(span, self.bundle.members))

    @property
    def size(self) -> int:
        """The size that the file must have, in bytes."""
        return self.end + len(closing(self.signature))

    def verify(self, on_bytes: OnBytes) -> None:
        """Read all of it and compare.

        Raises:
            UsageError: it differs from its manifest.
            OSError: it cannot be read.
        """
        at = self.start
        with self.path.open("rb") as file:
            for member in self.bundle.members:
                file.seek(at)
                if file.read(SECTOR) != header(member.name, member.size):
                    raise damaged(f"{member.name} is not where it should be")
                digest, left = hashlib.sha256(), member.size
                while left and (block := file.read(min(BLOCK, left))):
                    digest.update(block)
                    left -= len(block)
                    on_bytes(len(block))
                if digest.hexdigest() != member.sha256:
                    raise damaged(f"{member.name} has changed: its digest is {digest.hexdigest()}, not {member.sha256}")
                if file.read(len(padding(member.size))) != padding(member.size):
                    raise damaged(f"unexpected data after {member.name}")
                at += span(member)
            rest = closing(self.signature)
            if file.read(len(rest) + 1) != rest:
                raise damaged("unexpected data after the end-of-archive marker")

    def write(self, member: Member, target: Path, on_bytes: OnBytes) -> None:
        """Write a member to a new file, unpacked. Its digest is checked again: the file may have been replaced.

        Raises:
            UsageError: it has changed since it was verified; `target` may be there then.
            OSError: it cannot be read or written.
        """
        part = _Part(self.path, self._start(member), member.size)
        with part, target.open("wb") as out:
            target.chmod(MODE)
            try:
                for block in unpack(part, member.content) if member.packed else iter(lambda: part.read(BLOCK), b""):
                    out.write(block)
                    on_bytes(len(block))
            except ValueError as error:
                raise damaged(f"{member.name} cannot be unpacked: {error}") from error
            part.check(member)

    def read(self, member: Member) -> bytes:
        """The bytes of a member that is not packed.

        Raises:
            UsageError: it differs from the manifest.
            OSError: it cannot be read.
        """
        with _Part(self.path, self._start(member), member.size) as part:
            found = part.readall()
            part.check(member)
        return found

    def _start(self, member: Member) -> int:
        at = self.start + SECTOR
        for each in self.bundle.members:
            if each == member:
                return at
            at += span(each)
        raise KeyError(member.name)


class _Part(io.RawIOBase):
    """A range of a file, and the digest of what was read of it."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = size
        self._digest = hashlib.sha256()

    def check(self, member: Member) -> None:
        """Compare the whole range with a member's digest; the rest is read first, unless the range was closed.

        Raises:
            UsageError: they differ.
        """
        while not self.closed and self.read(BLOCK):
            pass
        if self._digest.hexdigest() != member.sha256:
            raise damaged(f"{member.name} has changed: its digest is {self._digest.hexdigest()}, not {member.sha256}")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._file.read(min(len(buffer), self._left)) or b""
        buffer[: len(block)] = block
        self._left -= len(block)
        self._digest.update(block)
        return len(block)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_bundle(path: Path) -> BundleFile:
    """Read the manifest of a bundle, and check the size of the file.

    Raises:
        NotFound: there is no such file.
        UsageError: it is not a bundle, was written by a newer klab, or is cut off or damaged.
    """
    try:
        refuse_special(path, hint=(Remedy("export"), " writes one"))
        with path.open("rb") as file:
            found = _read(path, file)
        length = path.stat().st_size
    except FileNotFoundError:
        raise NotFound(
            f"there is no file {path}",
            hint=(Remedy("export"), " writes one, ", Remedy("bundles"), " lists those that klab has kept"),
        ) from None
    if length < found.size:
        raise damaged(f"it is cut off: {length} bytes of {found.size}")
    if length > found.size:
        raise damaged(f"unexpected data at its end: {length - found.size} bytes")
    return found


def _read(path: Path, file: BinaryIO) -> BundleFile:
    first = file.read(SECTOR)
    try:
        member = tarfile.TarInfo.frombuf(first, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError):
        raise _stranger(path) from None
    if member.name != MANIFEST or not 0 < member.size <= _MOST_MANIFEST:
        raise _stranger(path)
    manifest = file.read(member.size)
    if len(manifest) < member.size:
        raise damaged("it is cut off within its manifest")
    try:
        text = manifest.decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged(f"its manifest: {error}") from error
    head = beginning(manifest)
    file.seek(0)
    whole = file.read(len(head)) == head
    # Another format may have no digest in this place.
    bundle = from_json(text)
    if not whole:
        raise damaged("its manifest has changed, or is cut off")
    found = BundleFile(path, bundle, manifest)
    return replace(found, signature=_signature(file, found.end))


def _signature(file: BinaryIO, start: int) -> bytes:
    """The bytes of the signature; empty where there is none."""
    file.seek(start)
    found = file.read(SECTOR)
    try:
        member = tarfile.TarInfo.frombuf(found, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError):
        return b""
    if member.name != SIGNATURE or not 0 < member.size <= MOST_SIGNATURE or found != header(SIGNATURE, member.size):
        return b""
    return file.read(member.size)


def _stranger(path: Path) -> UsageError:
    return UsageError(
        f"{path} is not a bundle", hint=(Remedy("export"), " writes one; ", Remedy("create"), " takes scenarios")
    )
