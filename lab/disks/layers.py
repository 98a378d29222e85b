"""The index of disk layers: which layer lies on which, which are needed, and which may go. Pure.

A machine's disk is a chain of qcow2 files: the box at the bottom, then a layer for each time
the disk was frozen, and on top the layer that the machine writes to. Snapshots of a lab that
was put back to an older one make a tree of it.

    box <- a <- b <- c (the machine writes here)
             `- d      (a snapshot holds this one)

A layer is needed by the machine that writes to it and by each capture that has frozen it; what
lies below a needed layer is needed with it, but not for its own sake: it may become one with
the layer above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Merge:
    """Layers that become one: `into` takes up the content of those in `gone`, the lowest first.

    What was needed of the uppermost of them is needed of `into` afterwards.
    """

    into: str
    gone: tuple[str, ...]

    @property
    def top(self) -> str:
        """The uppermost of them: what `into` reads like in the end."""
        return self.gone[-1]


@dataclass(frozen=True, slots=True)
class Tidying:
    """What can be done without loss: layers to delete, in order (children before parents), and layers to merge."""

    drop: tuple[str, ...]
    merge: tuple[Merge, ...]


def chain(backing: Mapping[str, str | None], layer: str) -> list[str]:
    """A layer and those below it that are in the index, from the top down."""
    found: list[str] = []
    below: str | None = layer
    while below is not None and below in backing and below not in found:
        found.append(below)
        below = backing[below]
    return found


def closure(backing: Mapping[str, str | None], layers: Iterable[str]) -> set[str]:
    """These layers and all that they lie on."""
    return {name for layer in layers for name in chain(backing, layer)}


def tidying(backing: Mapping[str, str | None], needed: Iterable[str]) -> Tidying:
    """What may go.

    Args:
        backing: by layer the one below it; None, or a name that is not in the index, below the lowest.
        needed: the layers that a machine writes to or a capture has frozen.
    """
    wanted = set(needed)
    kept = closure(backing, wanted)
    gone = sorted(set(backing) - kept, key=lambda name: len(chain(backing, name)), reverse=True)
    children: dict[str, list[str]] = {name: [] for name in kept}
    for name in kept:
        below = backing[name]
        if below in children:
            children[below].append(name)
    merges = []
    for name in sorted(kept):
        below = backing[name]
        starts = _melts(name, children, wanted) and not (below in children and _melts(below, children, wanted))
        if starts:
            run = [name]
            while _melts(run[-1], children, wanted):
                run.append(children[run[-1]][0])
            merges.append(Merge(run[0], tuple(run[1:])))
    return Tidying(tuple(gone), tuple(merges))


def _melts(name: str, children: Mapping[str, list[str]], wanted: set[str]) -> bool:
    """Whether a layer is there for just one other layer's sake."""
    return name not in wanted and len(children[name]) == 1
