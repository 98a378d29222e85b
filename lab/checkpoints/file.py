"""A checkpoint as one file: a tar whose every byte follows from its manifest, which is its first member.

    klab-checkpoint.json          the manifest, see `lab.checkpoints.format`
    klab-checkpoint.json.sha256   its digest, as sha256sum -c takes it
    pki/... ssh/...               the lab's keys
    nodes/NODE.qcow2.gz           what distinguishes a node's disk from the box's
    box/disk.qcow2.gz             the box's disk, unless it was left out
    klab-checkpoint.json.sig      a signature of the manifest, where it was signed; see `lab.checkpoints.signature`

tar unpacks it. klab does not: it reads the manifest, reckons where each member must lie, and compares the
header there with the one that it would have written. So no name of a member leads anywhere, what lies between
members is zeros, and a file that was cut off or changed is told before anything of it is used.
Source of the format: POSIX.1-1988 (ustar), by Python's tarfile.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from lab.checkpoints.format import Checkpoint, Member, box_member, checked, damaged, from_json, to_json
from lab.checkpoints.pack import pack, unpack
from lab.checkpoints.signature import MOST_BYTES as MOST_SIGNATURE
from lab.errors import Conflict, HostError, NotFound, UsageError
from lab.files import refuse_special
from lab.store import hold

MANIFEST = "klab-checkpoint.json"
SUM = f"{MANIFEST}.sha256"
SIGNATURE = f"{MANIFEST}.sig"
PARTIAL = ".partial"
MODE = 0o600  # it holds private keys
BLOCK = 1 << 20
_SECTOR = tarfile.BLOCKSIZE
_END = bytes(2 * _SECTOR)
_MOST_MANIFEST = 16 << 20

DRAFT = "checkpoint.tar"
_DISK_DRAFT = ".qcow2"

OnBytes = Callable[[int], None]
Sign = Callable[[bytes], bytes]


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, MODE
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _SECTOR)


def _span(member: Member) -> int:
    """How many bytes a member takes, its header included."""
    return _SECTOR + member.size + len(_padding(member.size))


def _closing(signature: bytes) -> bytes:
    """All that stands behind the last member."""
    if not signature:
        return _END
    return b"".join((_header(SIGNATURE, len(signature)), signature, _padding(len(signature)), _END))


def _sum(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def _beginning(manifest: bytes) -> bytes:
    """All that stands before the first member."""
    told = _sum(manifest)
    parts = (_header(MANIFEST, len(manifest)), manifest, _padding(len(manifest)))
    return b"".join((*parts, _header(SUM, len(told)), told, _padding(len(told))))


# --- reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A checkpoint in a file.

    `manifest` are the bytes of its manifest, whose SHA-256 stands for all of the file. `signature` is that of the
    manifest, empty where there is none.
    """

    path: Path
    checkpoint: Checkpoint
    manifest: bytes
    signature: bytes = b""

    @property
    def digest(self) -> str:
        """The SHA-256 of the manifest, in hex."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def start(self) -> int:
        """Where its first member begins."""
        return len(_beginning(self.manifest))

    @property
    def end(self) -> int:
        """Where its last member ends, the signature apart."""
        return self.start + sum(map(_span, self.checkpoint.members))

    @property
    def size(self) -> int:
        """How many bytes the file must have."""
        return self.end + len(_closing(self.signature))

    def verify(self, on_bytes: OnBytes) -> None:
        """Read all of it and compare.

        Raises:
            UsageError: it is not what its manifest says.
            OSError: it cannot be read.
        """
        at = self.start
        with self.path.open("rb") as file:
            for member in self.checkpoint.members:
                file.seek(at)
                if file.read(_SECTOR) != _header(member.name, member.size):
                    raise damaged(f"{member.name} is not where it should be")
                digest, left = hashlib.sha256(), member.size
                while left and (block := file.read(min(BLOCK, left))):
                    digest.update(block)
                    left -= len(block)
                    on_bytes(len(block))
                if digest.hexdigest() != member.sha256:
                    raise damaged(f"{member.name} has changed: its digest is {digest.hexdigest()}, not {member.sha256}")
                if file.read(len(_padding(member.size))) != _padding(member.size):
                    raise damaged(f"something stands behind {member.name}")
                at += _span(member)
            closing = _closing(self.signature)
            if file.read(len(closing) + 1) != closing:
                raise damaged("its end is not the end")

    def write(self, member: Member, target: Path, on_bytes: OnBytes) -> None:
        """Write a member to a new file, unpacked. Its digest is taken again: the file may be another by now.

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
            UsageError: it is not what the manifest says.
            OSError: it cannot be read.
        """
        with _Part(self.path, self._start(member), member.size) as part:
            found = part.readall()
            part.check(member)
        return found

    def _start(self, member: Member) -> int:
        at = self.start + _SECTOR
        for each in self.checkpoint.members:
            if each == member:
                return at
            at += _span(each)
        raise KeyError(member.name)


class _Part(io.RawIOBase):
    """A stretch of a file, and the digest of what was read of it."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._left = size
        self._digest = hashlib.sha256()

    def check(self, member: Member) -> None:
        """Compare all of it with a member's digest; read what is left of it first, unless that was given up.

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


def open_checkpoint(path: Path) -> CheckpointFile:
    """Read the manifest of a checkpoint, and see that the file is as long as that says.

    Raises:
        NotFound: there is no such file.
        UsageError: it is no checkpoint, of a newer klab, cut off or damaged.
    """
    try:
        refuse_special(path, hint="klab checkpoint makes one")
        with path.open("rb") as file:
            found = _read(path, file)
        length = path.stat().st_size
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", hint="klab checkpoint makes one, klab checkpoints lists") from None
    if length < found.size:
        raise damaged(f"it is cut off: {length} bytes of {found.size}")
    if length > found.size:
        raise damaged(f"it has {length - found.size} bytes too many")
    return found


def _read(path: Path, file: BinaryIO) -> CheckpointFile:
    first = file.read(_SECTOR)
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
    beginning = _beginning(manifest)
    file.seek(0)
    whole = file.read(len(beginning)) == beginning
    # Another format may be told otherwise than by a digest in this place.
    checkpoint = from_json(text)
    if not whole:
        raise damaged("its manifest has changed, or is cut off")
    found = CheckpointFile(path, checkpoint, manifest)
    return replace(found, signature=_signature(file, found.end))


def _signature(file: BinaryIO, start: int) -> bytes:
    """What stands where a signature would; empty where no signature does."""
    file.seek(start)
    header = file.read(_SECTOR)
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError):
        return b""
    if member.name != SIGNATURE or not 0 < member.size <= MOST_SIGNATURE or header != _header(SIGNATURE, member.size):
        return b""
    return file.read(member.size)


def _stranger(path: Path) -> UsageError:
    return UsageError(f"{path} is not a checkpoint", hint="klab checkpoint makes one; klab create NAME takes scenarios")


# --- writing ------------------------------------------------------------------------------------------


class Writer:
    """Writes a checkpoint beside its target; `seal` gives it its name. `scratch` is a folder on the same disk."""

    def __init__(self, scratch: Path, target: Path) -> None:
        self.scratch = scratch
        self._target = target
        self._draft = scratch / DRAFT
        handle = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        self._file = os.fdopen(handle, "w+b")
        self._members: list[Member] = []
        self._room = 0

    def begin(self, draft: Checkpoint) -> None:
        """Make room for the manifest. `draft` has all members by name; sizes and digests are not known yet.

        Raises:
            Conflict: the lab has something that a checkpoint cannot say, so that nobody could read it again.
        """
        sizes = {box_member(name): size for name, (size, _) in draft.box.files.items()}
        empty = tuple(Member(m.name, 0, "f" * 64, sizes.get(m.name, 0)) for m in draft.members)
        longest = tuple(Member(m.name, (1 << 50) - 1, "f" * 64, (1 << 50) - 1) for m in draft.members)
        try:
            checked(replace(draft, members=empty))
        except ValueError as error:
            raise Conflict(
                f"lab {draft.lab!r} cannot be put into a checkpoint",
                details=[str(error)],
                hint="a pool or CPU model of a plain name can: letters, digits, dots, underscores and hyphens",
            ) from error
        self._room = len(to_json(replace(draft, members=longest)))
        self._file.seek(len(_beginning(bytes(self._room))))

    def add(self, member: str, source: BinaryIO, on_bytes: OnBytes) -> Member:
        """Write what is read as a member, packed where its name says so.

        `on_bytes` is told how many bytes of the source have been read since the last time.
        """
        start = self._file.tell()
        self._file.seek(_SECTOR, os.SEEK_CUR)
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
        self._file.write(_padding(stored))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_header(member, stored))
        self._file.seek(end)
        made = Member(member, stored, digest.hexdigest(), content)
        self._members.append(made)
        return made

    def seal(self, draft: Checkpoint, sign: Sign | None = None) -> CheckpointFile:
        """Write the manifest and let the file have its name, once all of it is on disk.

        Args:
            draft: what is known of the checkpoint; its members are those that were added.
            sign: makes the signature of a manifest.

        Raises:
            UsageError: what has the name by now is not a regular file; or as `sign`.
        """
        checkpoint = replace(draft, members=tuple(self._members))
        # Blanks at its end are nothing to JSON.
        manifest = to_json(checkpoint).encode("ascii").ljust(self._room)
        signature = sign(manifest) if sign else b""
        self._file.write(_closing(signature))
        self._file.seek(0)
        self._file.write(_beginning(manifest))
        self._file.flush()
        os.fsync(self._file.fileno())
        refuse_special(self._target)
        self._draft.replace(self._target)
        _to_disk(self._target.parent)
        return CheckpointFile(self._target, checkpoint, manifest, signature)

    def close(self) -> None:
        self._file.close()


def _blocks(source: BinaryIO, on_bytes: OnBytes) -> Iterator[bytes]:
    while block := source.read(BLOCK):
        on_bytes(len(block))
        yield block


def _to_disk(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """Write a checkpoint to `target`, which stays as it is, or absent, until all of it is on disk.

    A folder beside it, `.NAME.partial`, holds what is not finished. What a kill leaves in it, the next try removes.
    It may lie where others write, too: it is used only if it is this user's and nobody else can enter it.

    Raises:
        Conflict: another klab writes to the same file, or what has the folder's name is not klab's.
        HostError: nothing can be written there.
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
            hint="-o FILE says where the checkpoint goes",
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
        finally:
            _empty(scratch)
            scratch.rmdir()
    finally:
        os.close(handle)


def _own_folder(folder: Path) -> int:
    """An open folder; links are not followed.

    Raises:
        Conflict: it is not a folder of this user's that nobody else can enter.
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
        f"{folder} is in the way", details=[f"klab did not make it: {why}"], hint="look what it is and remove it"
    )


def _empty(folder: Path) -> None:
    """Remove what a `Writer` has left in its folder.

    Raises:
        Conflict: something else is in it.
    """
    for file in sorted(folder.iterdir()):
        if not stat.S_ISREG(file.lstat().st_mode) or (file.name != DRAFT and file.suffix != _DISK_DRAFT):
            raise _not_klabs(folder, f"it holds {file.name}")
        file.unlink()
