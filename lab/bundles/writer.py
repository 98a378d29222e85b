"""Writing a bundle's file beside its target; it is renamed to the target when all of it is on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from lab.bundles.file import BLOCK, BundleFile, OnBytes
from lab.bundles.format import Bundle, Member, box_member, checked, image_member, to_json
from lab.bundles.layout import MODE, SECTOR, beginning, closing, header, padding
from lab.bundles.pack import pack
from lab.errors import Conflict, HostError
from lab.files import folder_to_disk, refuse_special
from lab.locks import hold

PARTIAL = ".partial"
DRAFT = "checkpoint.tar"
_DISK_DRAFT = ".qcow2"

Sign = Callable[[bytes], bytes]


class Writer:
    """Writes a bundle beside its target; `seal` gives it its name. `scratch` is a folder on the same disk."""

    def __init__(self, scratch: Path, target: Path) -> None:
        self.scratch = scratch
        self._target = target
        self._draft = scratch / DRAFT
        handle = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        self._file = os.fdopen(handle, "w+b")
        self._members: list[Member] = []
        self._room = 0

    def begin(self, draft: Bundle) -> None:
        """Reserve room for the manifest. `draft` has all members by name; sizes and digests are not known yet.

        Raises:
            Conflict: the lab has a value that no bundle may have, so that the file could not be read again.
        """
        sizes = {box_member(name): size for name, (size, _) in draft.box.files.items()}
        of_images = {image_member(name): size for image in draft.images for name, size in image.files.items()}
        empty = tuple(
            Member(m.name, of_images.get(m.name, 0), "f" * 64, (sizes | of_images).get(m.name, 0))
            for m in draft.members
        )
        longest = tuple(Member(m.name, (1 << 50) - 1, "f" * 64, (1 << 50) - 1) for m in draft.members)
        try:
            checked(replace(draft, members=empty))
        except ValueError as error:
            raise Conflict(
                f"lab {draft.lab!r} cannot be put into a bundle",
                details=[str(error)],
                hint="a bundle holds plain names (letters, digits, ., _ and -) and private networks only",
            ) from error
        self._room = len(to_json(replace(draft, members=longest)))
        self._file.seek(len(beginning(bytes(self._room))))

    def add(self, member: str, source: BinaryIO, on_bytes: OnBytes) -> Member:
        """Write the content of `source` as a member, packed if its name ends so.

        `on_bytes` is told how many bytes of the source have been read since it was last called.
        """
        start = self._file.tell()
        self._file.seek(SECTOR, os.SEEK_CUR)
        content, stored, digest = 0, 0, hashlib.sha256()

        def count(size: int) -> None:
            nonlocal content
            content += size
            on_bytes(size)

        packed = Member(member, 0, "", 0).packed
        for block in pack(source, count) if packed else _blocks(source, count):
            self._file.write(block)
            digest.update(block)
            stored += len(block)
        self._file.write(padding(stored))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(header(member, stored))
        self._file.seek(end)
        made = Member(member, stored, digest.hexdigest(), content)
        self._members.append(made)
        return made

    def seal(self, draft: Bundle, sign: Sign | None = None) -> BundleFile:
        """Write the manifest, sync the file to disk and rename it to its target.

        Args:
            draft: the bundle; its members are replaced by those that were added.
            sign: makes the signature of a manifest.

        Raises:
            UsageError: the target has become something else than a regular file; or as `sign`.
        """
        bundle = replace(draft, members=tuple(self._members))
        # JSON permits blanks at its end.
        manifest = to_json(bundle).encode("ascii").ljust(self._room)
        signature = sign(manifest) if sign else b""
        self._file.write(closing(signature))
        self._file.seek(0)
        self._file.write(beginning(manifest))
        self._file.flush()
        os.fsync(self._file.fileno())
        refuse_special(self._target)
        self._draft.replace(self._target)
        folder_to_disk(self._target.parent)
        return BundleFile(self._target, bundle, manifest, signature)

    def close(self) -> None:
        self._file.close()


def _blocks(source: BinaryIO, on_bytes: OnBytes) -> Iterator[bytes]:
    while block := source.read(BLOCK):
        on_bytes(len(block))
        yield block


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """Write a bundle to `target`, which stays as it is, or absent, until all of it is on disk.

    A folder beside it, `.NAME.partial`, holds the unfinished file. What a kill leaves in it, the next try removes.
    Others may be able to write beside it: the folder is used only if it is this user's and no other user can enter it.

    Raises:
        Conflict: another klab writes to the same file, or something that is not klab's has the folder's name.
        HostError: the folder cannot be written to.
        OSError: as in the block; it names the folder where it would name no file.
    """
    scratch = target.parent / f".{target.name}{PARTIAL}"
    try:
        with contextlib.suppress(FileExistsError):
            scratch.mkdir(mode=0o700)
        handle = _own_folder(scratch)
    except OSError as error:
        raise HostError(
            f"nothing can be written to {target.parent}",
            details=[f"{error.strerror}: {error.filename}"],
            hint="-o FILE sets where the bundle goes",
        ) from error
    try:
        try:
            mine = hold(handle, scratch)
        except BlockingIOError:
            mine = False
        if not mine:
            raise Conflict(f"another klab is writing {target}", hint="wait for it to end")
        _empty(scratch)
        try:
            with contextlib.closing(Writer(scratch, target)) as writer:
                yield writer
        except OSError as error:
            if error.filename is None:  # a write that finds the disk full
                error.filename = str(target.parent)
            raise
        finally:
            _empty(scratch)
            scratch.rmdir()
    finally:
        os.close(handle)


def _own_folder(folder: Path) -> int:
    """An open folder; links are not followed.

    Raises:
        Conflict: it is not a folder of this user's that no other user can enter.
        OSError: it cannot be opened.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:  # a file, or a link (open(2), O_NOFOLLOW with O_DIRECTORY)
        raise _not_klabs(folder, "it is not a folder") from None
    found = os.fstat(handle)
    if found.st_uid == os.geteuid() and not found.st_mode & 0o077:
        return handle
    os.close(handle)
    raise _not_klabs(folder, f"it belongs to uid {found.st_uid}, its mode is {stat.S_IMODE(found.st_mode):04o}")


def _not_klabs(folder: Path, why: str) -> Conflict:
    return Conflict(
        f"{folder} is in the way", details=[f"klab did not make it: {why}"], hint="find out what it is, and remove it"
    )


def _empty(folder: Path) -> None:
    """Remove the files that a `Writer` has left in its folder.

    Raises:
        Conflict: there are other files in it.
    """
    for file in sorted(folder.iterdir()):
        if not stat.S_ISREG(file.lstat().st_mode) or (file.name != DRAFT and _DISK_DRAFT not in file.suffixes):
            raise _not_klabs(folder, f"it holds {file.name}")
        file.unlink()
