"""The snapshots of a lab as a tree. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.snapshots.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Branch:
    """A snapshot and those taken on top of it, oldest first."""

    manifest: Manifest
    above: tuple[Branch, ...]


def tree(manifests: Sequence[Manifest]) -> tuple[Branch, ...]:
    """The snapshots that lie on no other, oldest first, each with what lies on it.

    One whose parent has been removed is a root. A circle, which only a damaged file can
    make, is cut at its oldest snapshot.
    """
    ordered = sorted(manifests, key=lambda m: m.created)
    known = {m.id for m in ordered}
    placed: set[str] = set()

    def grow(manifest: Manifest) -> Branch:
        placed.add(manifest.id)
        return Branch(manifest, tuple(grow(m) for m in ordered if m.parent == manifest.id and m.id not in placed))

    roots = [grow(m) for m in ordered if m.parent not in known]
    roots += [grow(m) for m in ordered if m.id not in placed]
    return tuple(roots)
