"""Files: read with a limit, written whole or not at all.

A person's own files are read with `read_limited` and written with `write_outside`, so that nothing of theirs is lost;
what klab keeps for itself, under KLAB_HOME, is written with `write_atomic`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.errors import Advice, NotFound, UsageError
from lab.text import visible

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
PRIVATE = 0o600


def refuse_special(path: Path, *, hint: Advice = "name a regular file") -> None:
    """Refuse what is there but is not a regular file; links are followed.

    Raises:
        UsageError: it is a folder, a FIFO, a socket or a device.
        OSError: it cannot be inspected.
    """
    with contextlib.suppress(FileNotFoundError):
        _refuse(path, path.stat().st_mode, hint)


def _refuse(path: Path, mode: int, hint: Advice) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "not a regular file")
        raise UsageError(f"{visible(str(path))} is {kind}", hint=hint)


def read_limited(path: Path, most: int, *, hint: Advice = "name a regular file") -> bytes:
    """The content of a regular file.

    Args:
        path: the file; links are followed.
        most: how many bytes it may have.
        hint: what to do where it is not a regular file, or too large.

    Raises:
        NotFound: there is no such file.
        UsageError: it is not a regular file, or larger than `most`.
        OSError: it cannot be read.
    """
    try:
        # Opening a device, or waiting for the other end of a FIFO, may do something; so look first.
        refuse_special(path, hint=hint)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no file {visible(str(path))}", hint=hint) from None
    with os.fdopen(handle, "rb") as file:
        _refuse(path, os.fstat(handle).st_mode, hint)
        raw = file.read(most + 1)
    if len(raw) > most:
        raise UsageError(f"{visible(str(path))} is larger than {_size(most)}", hint=hint)
    return raw


def _size(count: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"


def write_outside(
    path: Path, data: str | bytes, *, mode: int = PRIVATE, replaces: bool = True, like: Path | None = None
) -> None:
    """Write a file that is not klab's own, such as a person's kubeconfig.

    A reader, a kill or a power failure sees the old content or the new, never half. A link stays a link; a file
    that is there keeps its owner, group and mode.

    Args:
        path: the file; its folder exists.
        data: its new content.
        mode: of a file that is new; less what the umask takes away, unless it is private.
        replaces: whether a file that is there may be replaced.
        like: a file whose owner, group and mode a file that is new has, in place of `mode`.

    Raises:
        UsageError: something is there that is not a regular file.
        FileExistsError: a file is there and may not be replaced.
        OSError: it cannot be written, or would change hands.
    """
    file = path.resolve()
    refuse_special(file)
    raw = data.encode() if isinstance(data, str) else data
    with _draft(file) as (handle, draft):
        with os.fdopen(handle, "wb", closefd=False) as out:
            out.write(raw)
        _take_after(file, handle, mode, like)
        os.fsync(handle)
        if replaces:
            draft.replace(file)
        else:
            os.link(draft, file)
            draft.unlink()
    folder_to_disk(file.parent)


def _take_after(file: Path, handle: int, mode: int, like: Path | None) -> None:
    try:
        there = file.stat() if like is None or file.exists() else like.stat()
    except FileNotFoundError:
        umask = os.umask(0o077)
        os.umask(umask)
        os.fchmod(handle, mode & ~umask)
        return
    mine = os.fstat(handle)
    if (there.st_uid, there.st_gid) != (mine.st_uid, mine.st_gid):
        os.fchown(handle, there.st_uid, there.st_gid)
    os.fchmod(handle, stat.S_IMODE(there.st_mode))


@contextlib.contextmanager
def _draft(file: Path) -> Iterator[tuple[int, Path]]:
    """A new file beside another, for its owner alone; gone afterwards unless it was given a name."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:100]}.")
    try:
        yield handle, Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def folder_to_disk(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private(folder: Path) -> None:
    """Make a folder, and those above it, for their owner alone; what is there stays as it is."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new, never half.

    `durable`: the same holds for a power failure of the host; that waits for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(raw)
            out.flush()
            if durable:
                os.fsync(out.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
