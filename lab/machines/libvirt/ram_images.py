"""RAM images in a lab's pool: whole as libvirt writes and reads them, or as deltas of older ones to save space.

    klab-demo_cp1.KEY.ram         whole
    klab-demo_cp1.KEY.delta.ram   what distinguishes it from a whole one of the same machine
    klab-demo_cp1.KEY.back.ram    made whole again, while a machine is restored that cannot read it through a pipe

Deltas are all of one whole image, not of one another: to restore any of them, two files are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from lab.disks import images, ram_delta, ram_pipe
from lab.errors import MachineError, Remedy
from lab.machines.libvirt.capture_index import Saved
from lab.machines.libvirt.volumes import MEMORY, LayerStore

DELTA = f".delta{MEMORY}"
BACK = f".back{MEMORY}"
# A delta larger than this part of its image is not worth it: the image stays whole, and those to come build on it.
WORTH = 0.5

T = TypeVar("T")


def finalized(store: LayerStore, saved: Saved, older: str) -> Saved:
    """Bring a whole RAM image to disk, or a delta of it instead; the image itself stays for now.

    Args:
        store: where it lies.
        saved: what has just been captured.
        older: a whole RAM image of the same machine, by file name; empty where there is none.

    Returns:
        What the index says of it.

    Raises:
        OSError: the disk does not take it.
    """
    whole = Path(store.path(saved.memory))
    if older:
        delta = whole.with_name(_named(saved, DELTA))
        # Without room for both, or without the older one, it stays as it is.
        with contextlib.suppress(OSError, ValueError):
            ram_delta.write(whole, Path(store.path(older)), delta)
            if delta.stat().st_size <= whole.stat().st_size * WORTH:
                return replace(saved, memory=delta.name, older=older)
        delta.unlink(missing_ok=True)
    images.to_disk(whole)
    return saved


@dataclass(frozen=True, slots=True)
class Image:
    """A RAM image for a reader that reads it completely, by its path.

    A delta is put together while it is read. Where that cannot be, a file is made of it; `drop_made` deletes that.

    Args:
        store: where it lies.
        saved: its entry in the index.
        pipe: where a path may lead for a moment.
        refused: what a reader raises that cannot read from a pipe.
    """

    store: LayerStore
    saved: Saved
    pipe: Path
    refused: type[Exception]

    def check(self) -> None:
        """Make sure that it is there and whole, as far as a quick look can tell.

        Raises:
            MachineError: it is not.
        """
        if self.saved.older:
            try:
                ram_delta.check(*self._files)
            except (OSError, ram_delta.DamagedDeltaError) as error:
                raise _useless(self.saved, error) from error

    def read_head(self, reader: Callable[[str], T]) -> T:
        """What a reader makes of its beginning, which is all that it reads."""
        return self._read(reader, lambda head: [head])

    def read(self, reader: Callable[[str], T], *, heads: int = 0) -> T:
        """What a reader makes of it.

        Args:
            reader: gets the path.
            heads: how often it reads the beginning alone, before it reads all of it.

        Raises:
            MachineError: as `made_whole`.
        """
        return self._read(reader, lambda head: chain([head] * heads, ram_delta.pieces(*self._files)))

    def _read(self, reader: Callable[[str], T], shown: Callable[[bytes], Iterable[images.Piece]]) -> T:
        if not self.saved.older:
            return reader(self.store.path(self.saved.memory))
        with (
            contextlib.suppress(OSError, ValueError, self.refused),
            ram_pipe.fed(self.pipe, shown(self._head())) as path,
        ):
            return reader(path)
        return reader(self.store.path(made_whole(self.store, self.saved)))

    def _head(self) -> bytes:
        return ram_pipe.head(block for _, block in ram_delta.stretches(*self._files))

    @property
    def _files(self) -> tuple[Path, Path]:
        return Path(self.store.path(self.saved.memory)), Path(self.store.path(self.saved.older))


def made_whole(store: LayerStore, saved: Saved) -> str:
    """The name of a file with a whole RAM image; where that is made for it, `drop_made` deletes it.

    Raises:
        MachineError: the delta is damaged or may not be read, or there is no room.
    """
    if not saved.older:
        return saved.memory
    back = _named(saved, BACK)
    try:
        ram_delta.restore(*(Path(store.path(name)) for name in (saved.memory, saved.older, back)))
    except (OSError, ram_delta.DamagedDeltaError) as error:
        raise _useless(saved, error) from error
    return back


def _useless(saved: Saved, error: Exception) -> MachineError:
    return MachineError(
        f"the RAM image {saved.memory} cannot be made whole",
        details=[str(error)],
        hint=(
            "it needs root; room on the disk, where libvirt reads no pipe: ",
            Remedy("snapshot prune", options=("--keep", "3")),
            " makes some",
        ),
    )


def drop_made(store: LayerStore, saved: Saved) -> None:
    """Delete what `made_whole` made."""
    if saved.older:
        Path(store.path(_named(saved, BACK))).unlink(missing_ok=True)


def stretches(store: LayerStore, memory: str, older: str) -> Iterator[tuple[int, bytes | memoryview]]:
    """The bytes of the whole image behind a delta; as `images.stretches`.

    Raises:
        OSError: a file cannot be read.
        MachineError: the delta is damaged.
    """
    try:
        yield from ram_delta.stretches(Path(store.path(memory)), Path(store.path(older)))
    except ram_delta.DamagedDeltaError as error:
        raise MachineError(
            f"{memory} has changed, and cannot be read any more: {error}",
            hint=(Remedy("snapshot rm"), " removes the snapshot that needs it"),
        ) from error


def _named(saved: Saved, suffix: str) -> str:
    return saved.memory.removesuffix(DELTA).removesuffix(MEMORY) + suffix
