"""Interface for saving and restoring the RAM and disks of a lab's VMs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Protocol

READ_HINT = "journalctl -k shows whether the disk has errors; klab snapshots lists the snapshots"


class PartKind(StrEnum):
    """What a file of a capture holds."""

    MEMORY = "memory"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Part:
    """A file that a capture consists of.

    `name` is the file's, unique in the lab. `size` are the bytes it takes on disk, holes left out. `stamp` is another
    after each change of a file that is slow to read, as it is read through a daemon; empty where it is not slow.
    `base` is the file that it is a delta of, whose bytes its content has, too; empty for a whole one.
    """

    node: str
    kind: PartKind
    name: str
    size: int
    stamp: str = ""
    base: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """Space for a capture, in bytes: what is free in the folder that it goes to, and what each node's RAM may take."""

    folder: PurePath
    free: int
    needed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A file of captures whose content changes because others are forgotten: it takes up that of `sources`."""

    name: str
    sources: tuple[str, ...]


def differences(saved: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What an `unfit` tells where saved RAM wants the very platform that it was saved on, by node."""
    return [
        f"the RAM of {node} was saved with {what} {before.get(what, 'unknown')}, "
        f"here it is {now.get(node, {}).get(what, 'unknown')}"
        for node, before in saved.items()
        for what in sorted({*before, *now.get(node, {})})
        if before.get(what) != now.get(node, {}).get(what)
    ]


class Captures(Protocol):
    """The RAM and disks of one lab's machines at one moment, kept under a key.

    The machines run on, over disks that are frozen there; a capture can be restored as often as one likes.
    """

    def suspend(self, nodes: Sequence[str]) -> dict[str, float]:
        """Pause running machines, all within a moment; one that is paused stays so.

        Returns:
            By node when it was told to, in seconds since 1970.

        Raises:
            MachineError: one does not run, or cannot be suspended; others may be paused by then.
        """
        ...

    def resume(self, nodes: Sequence[str]) -> dict[str, float]:
        """Let paused machines continue, all within a moment; one that runs is left.

        Returns:
            By node when it ran again, in seconds since 1970.

        Raises:
            MachineError: one cannot continue; those that can do.
        """
        ...

    def room(self, nodes: Sequence[str]) -> Room:
        """How much space a capture of these nodes' RAM may take, and how much there is."""
        ...

    def platform(self) -> dict[str, dict[str, str]]:
        """By node what its RAM, were it saved now, depends on: the emulator's version, CPU model and the like, by name.

        Raises:
            MachineError: a machine is missing.
        """
        ...

    def unfit(self, saved: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Why RAM cannot be loaded here that was saved when `platform` told this, one line each; [] where it can."""
        ...

    def capture(self, key: str, nodes: Sequence[str], on_saved: Callable[[str], None]) -> None:
        """Keep the disks of these machines under a key, and the RAM of those that are suspended; side by side.

        The machines stay as they are, suspended or off. Until it returns there is no capture of
        that key; after a failure, or a kill, `delete` undoes what it has begun.

        Args:
            key: lower-case letters, digits and hyphens; not in use.
            nodes: the machines, each of them suspended or off.
            on_saved: called with each node that is done, from another thread.

        Raises:
            MachineError: one cannot be saved; `details` has the reason.
        """
        ...

    def finalize(self, key: str) -> None:
        """Bring a capture to disk, so that it outlives a power failure of the host, in as little space as may be.

        Its files may have other names and sizes afterwards; their content is the same.

        Raises:
            NotFound, MachineError: as `parts`; the disk does not take it.
        """
        ...

    def revert(self, key: str, nodes: Sequence[str], on_back: Callable[[str], None]) -> None:
        """Put machines back to a capture, side by side, whatever they do now; what they held is lost.

        Those whose RAM was kept are suspended afterwards, the others off. Their definitions are
        those of the capture; a machine that is gone is made again.

        Raises:
            NotFound: there is no capture of that key.
            MachineError: a machine cannot be restored; the same call again continues.
        """
        ...

    def keys(self) -> list[str]:
        """The keys of all captures there are, oldest first."""
        ...

    def parts(self, key: str) -> list[Part]:
        """The files of a capture: by node its RAM, if it was kept, then its disk's layers from the top down.

        Captures share layers. The box below all of them is not listed.

        Raises:
            NotFound: there is no capture of that key.
            MachineError: a file of it is missing, or what klab wrote down of it is damaged.
        """
        ...

    def content(self, part: Part) -> Iterator[tuple[int, bytes | memoryview]]:
        """What a part holds: offset and bytes of each stretch, in order; what is left out is zeros.

        The bytes are there until the next are asked for. The last item is the file's length with no
        bytes. Where a layer lies on another, the other's name is left out: it may change.

        Raises:
            MachineError: it cannot be read.
        """
        ...

    def rewrites(self, keys: Sequence[str]) -> list[Rewrite]:
        """The files of other captures that `delete` of these would rewrite if it may, to save space."""
        ...

    def unmerged(self) -> list[str]:
        """What takes space that `delete` could not save yet, with when it can, one line each."""
        ...

    def delete(self, keys: Sequence[str], *, merge: bool = False) -> None:
        """Delete captures, whole or half-made, and every file that no other and no machine needs. Idempotent.

        Args:
            keys: which; none of them has to exist.
            merge: also rewrite the files that `rewrites` names; the digests that the caller keeps of them are
                old then.

        Raises:
            MachineError: something of them cannot be removed.
        """
        ...
