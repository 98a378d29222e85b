"""Which files hold which capture: one small JSON file each in the lab's folder, so that damage to one is no other's.

captures/KEY.json     an entry: by node its frozen layer, its RAM image, its definition
captures/.merge.json  layers that are becoming one, until they are
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lab import records
from lab.disks.layers import Merge
from lab.errors import MachineError, NotFound, Remedy
from lab.files import write_atomic
from lab.text import shortened

MOST_SECONDS = 1 << 60  # more than any clock shows


@dataclass(frozen=True, slots=True)
class Saved:
    """One node of a capture.

    `disk` is the layer that was frozen, `memory` the RAM image or empty, both by file name.
    `definition` is the domain's XML as it was to be started, `host_key` the lines by which ssh knew it.
    `older` is the RAM image that `memory` is a delta of, by file name; empty where `memory` is whole.
    """

    disk: str
    memory: str
    definition: str
    host_key: str = ""
    older: str = ""

    @property
    def memories(self) -> set[str]:
        """The files that its RAM needs."""
        return {name for name in (self.memory, self.older) if name}


@dataclass(frozen=True, slots=True)
class Entry:
    """One capture. `made` in seconds since 1970."""

    key: str
    made: float
    nodes: Mapping[str, Saved]

    def moved(self, old: str, new: str) -> Entry:
        """The same with another layer in place of one."""
        nodes = {name: replace(s, disk=new) if s.disk == old else s for name, s in self.nodes.items()}
        return replace(self, nodes=nodes)


class CaptureIndex:
    """The entries of one lab. `folder` is captures/."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entry(self, key: str) -> Entry:
        """The entry of that key.

        Raises:
            NotFound: there is none.
            MachineError: it is damaged.
        """
        file = self._file(key)
        try:
            found = records.parse(file.read_text(encoding="utf-8"))
            entry = records.build(Entry, found, others=True, key=key)
            if not abs(entry.made) < MOST_SECONDS:
                raise ValueError(f"made is {shortened(str(entry.made), 60)}, which is no moment")
        except FileNotFoundError:
            raise NotFound(f"there is no capture {key!r}", hint=(Remedy("snapshots"), " lists what there is")) from None
        except (OSError, ValueError) as error:
            raise MachineError(
                f"the metadata of capture {key!r} is damaged",
                details=[f"{file}: {error}"],
                hint=(
                    Remedy("snapshot rm", options=(key,)),
                    " removes what is left of it; the other snapshots are whole",
                ),
            ) from error
        return entry

    def keys(self) -> list[str]:
        """Of all entries, damaged ones included."""
        return sorted(file.stem for file in self.folder.glob("[!.]*.json"))

    def readable(self) -> tuple[list[Entry], bool]:
        """The entries that can be read, oldest first, and whether these are all."""
        found, whole = [], True
        for key in self.keys():
            try:
                found.append(self.entry(key))
            except MachineError:
                whole = False
        return sorted(found, key=lambda entry: entry.made), whole

    def older(self, memory: str) -> str:
        """The RAM image that a RAM image is a delta of, by file name; empty where it is whole."""
        found = (saved for entry in self.readable()[0] for saved in entry.nodes.values())
        return next((saved.older for saved in found if saved.memory == memory), "")

    def whole_before(self, key: str, node: str) -> str:
        """The whole RAM image of a node that the newest capture but this one builds on, by file name; empty if none."""
        for entry in reversed(self.readable()[0]):
            saved = entry.nodes.get(node)
            if entry.key != key and saved is not None and saved.memory:
                return saved.older or saved.memory
        return ""

    def write(self, entry: Entry, *, durable: bool = True) -> None:
        """Write an entry down; `durable` as in `write_atomic`."""
        nodes = {name: asdict(saved) for name, saved in entry.nodes.items()}
        text = json.dumps({"made": entry.made, "nodes": nodes}, indent=2)
        write_atomic(self._file(entry.key), text + "\n", mode=0o600, durable=durable)

    def move(self, old: str, new: str) -> None:
        """Let every entry that froze layer `old` name `new` instead."""
        for entry in self.readable()[0]:
            moved = entry.moved(old, new)
            if moved != entry:
                self.write(moved)

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._file(key).unlink(missing_ok=True)

    @property
    def merging(self) -> Merge | None:
        """The layers that were becoming one when klab was last heard of."""
        try:
            return records.build(Merge, records.parse(self._marker.read_text(encoding="utf-8")), others=True)
        except (OSError, ValueError):
            return None

    def note_merging(self, merge: Merge | None) -> None:
        """Write down which layers are about to become one; None when they are."""
        if merge is None:
            self._marker.unlink(missing_ok=True)
        else:
            write_atomic(self._marker, json.dumps(asdict(merge)) + "\n", mode=0o600)

    @property
    def _marker(self) -> Path:
        return self.folder / ".merge.json"

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"
