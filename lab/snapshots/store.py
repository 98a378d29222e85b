"""The snapshots of a lab on disk.

snapshots/ID.json           a manifest; what makes a snapshot exist
snapshots/ID.objects.json   the Kubernetes objects there were, where they could be seen
snapshots/stand             the id of the current snapshot
snapshots/attempt.json      the unfinished attempt (see `lab.snapshots.journal`)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import Conflict, LabError, NotFound, Remedy
from lab.files import write_atomic
from lab.snapshots.manifest import Manifest, from_json, to_json
from lab.store import LabFolder

_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4,}")


@dataclass(frozen=True, slots=True)
class Damaged:
    """A manifest that cannot be read, and why."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class SnapshotStore:
    """The snapshots of one lab."""

    folder: LabFolder

    @property
    def path(self) -> Path:
        return self.folder.snapshots

    def all(self) -> tuple[list[Manifest], list[Damaged]]:
        """Every snapshot, oldest first, and those whose manifests are damaged."""
        found, damaged = [], []
        for file in sorted(self.path.glob("*.json")):
            if not _ID.fullmatch(file.stem):
                continue
            try:
                found.append(self._read(file.stem))
            except LabError as error:
                if file.exists():  # else another klab has just removed it
                    damaged.append(Damaged(file.stem, error.message))
        return sorted(found, key=lambda m: m.created), damaged

    def manifests(self) -> list[Manifest]:
        """Every snapshot that can be read, oldest first."""
        return self.all()[0]

    def pick(self, name: str | None) -> Manifest:
        """The snapshot with a name or id; without one the last that was taken by hand.

        Raises:
            NotFound: there is none.
            LabError: its manifest is damaged.
        """
        manifests, damaged = self.all()
        if name is None:
            taken = [m for m in manifests if not m.auto]
            if not taken:
                raise NotFound(
                    f"lab {self.folder.name!r} has no snapshot",
                    details=[f"automatic: {m.name}" for m in manifests if m.auto],
                    hint=(Remedy("snapshot"), " takes one"),
                )
            return taken[-1]
        for manifest in manifests:
            if name in {manifest.name, manifest.id}:
                return manifest
        for each in damaged:
            if name == each.id:
                raise self._unreadable(each)
        raise NotFound(
            f"lab {self.folder.name!r} has no snapshot called {name!r}",
            details=[f"{each.id}.json: {each.why}" for each in damaged],
            hint=f"it has: {', '.join(m.name for m in manifests) or 'none'}",
        )

    def ids(self, names: Sequence[str]) -> list[str]:
        """The ids of the snapshots of these names or ids, each once, damaged ones included.

        Raises:
            NotFound: there is no such snapshot.
        """
        damaged = {each.id for each in self.all()[1]}
        return list(dict.fromkeys(name if name in damaged else self.pick(name).id for name in names))

    def refuse_taken(self, name: str) -> None:
        """Make sure that a name is free.

        Raises:
            Conflict: a snapshot has it.
        """
        for manifest in self.manifests():
            if name in {manifest.name, manifest.id}:
                raise Conflict(
                    f"lab {self.folder.name!r} has a snapshot called {name!r} already",
                    hint=("choose another name, or remove that one: ", Remedy("snapshot rm", options=(name,))),
                )

    def write(self, manifest: Manifest) -> None:
        write_atomic(self._file(manifest.id), to_json(manifest), mode=0o600)

    def remove(self, ids: Sequence[str]) -> None:
        """Delete manifests and lists of objects; RAM and disks are not touched."""
        for each in ids:
            self._file(each).unlink(missing_ok=True)
            self.objects(each).unlink(missing_ok=True)

    def exists(self, identity: str) -> bool:
        return self._file(identity).is_file()

    def objects(self, identity: str) -> Path:
        """The file with the Kubernetes objects of a snapshot; it need not exist."""
        return self.path / f"{identity}.objects.json"

    @property
    def current(self) -> str:
        """The id of the current snapshot: the last that was taken or restored; empty without one."""
        file = self.path / "stand"
        return file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""

    def set_current(self, identity: str) -> None:
        write_atomic(self.path / "stand", f"{identity}\n")

    def _read(self, identity: str) -> Manifest:
        try:
            found = from_json(self._file(identity).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(f"it cannot be read: {error}") from error
        if found.id != identity:
            raise LabError(f"it is about snapshot {found.id}")
        return found

    def _unreadable(self, damaged: Damaged) -> LabError:
        return LabError(
            f"the manifest of snapshot {damaged.id} cannot be used",
            details=[f"{self._file(damaged.id)}: {damaged.why}"],
            hint=(
                Remedy("snapshot rm", options=(damaged.id,)),
                " removes the rest of it; the other snapshots are whole",
            ),
        )

    def _file(self, identity: str) -> Path:
        return self.path / f"{identity}.json"
