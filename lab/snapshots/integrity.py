"""Whether the files of snapshots are what they were: each is read again, whatever was trusted of it until now.

A restore reads what it needs, and trusts a file that is slow to read by its stamp (`Part.stamp`). Here neither size nor
times count, and damage is found before somebody needs the file.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace

from lab.cluster.progress import Progress
from lab.errors import LabError, MachineError, NotFound
from lab.machines.captures import READ_HINT, Part, PartKind
from lab.snapshots.check import matched, part_problems
from lab.snapshots.digest import WORKERS, digest
from lab.snapshots.manifest import Manifest
from lab.snapshots.session import Session
from lab.waiting import map_parallel

PHASE = "verify"
# By name the digest of a file, or why it cannot be read.
Found = Mapping[str, str | MachineError]


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was when a snapshot was taken.

    `why` is a clause that names it. `snapshots` are the names of those that need it; the id of one whose manifest is
    damaged. `file` is the file's name and `node` its node; both are empty where no file of a snapshot can be read.
    `below_lab`: the node's disk as it is now may be based on that file, too.
    """

    why: str
    snapshots: tuple[str, ...]
    file: str = ""
    node: str = ""
    below_lab: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found. `snapshots` are the names of those that were looked at, oldest first.

    `damaged` are those that need something of `damage`, whether or not they were looked at. `files` were read; they
    take `size` bytes on disk.
    """

    snapshots: tuple[str, ...]
    damaged: tuple[str, ...]
    damage: tuple[Damage, ...]
    files: int
    size: int

    @property
    def whole(self) -> tuple[str, ...]:
        """Those that were looked at and have no damage."""
        return tuple(name for name in self.snapshots if name not in self.damaged)


@dataclass(slots=True)
class _Files:
    """The files of a lab's snapshots, by name.

    `read` are those that are to be read. `recorded` has the digests that manifests have of each, by snapshot. `deltas`
    has the files that are deltas of one. `below_lab` are the layers of the snapshot that the lab is based on.
    """

    read: dict[str, Part] = field(default_factory=dict)
    recorded: dict[str, dict[str, str]] = field(default_factory=dict)
    deltas: dict[str, set[str]] = field(default_factory=dict)
    below_lab: set[str] = field(default_factory=set)

    def add(self, manifest: Manifest, parts: Sequence[Part]) -> None:
        """Count in the files of a snapshot."""
        known = matched(manifest, parts)
        for part in parts:
            self.recorded.setdefault(part.name, {})[manifest.name] = known[part.name]
            if part.base:
                self.deltas.setdefault(part.base, set()).add(part.name)

    def deceived(self, name: str, outcome: str | MachineError) -> tuple[str, ...]:
        """The snapshots whose manifests say something else of a file than reading it has shown."""
        return tuple(snapshot for snapshot, known in self.recorded[name].items() if known != outcome)


def verify_locked(session: Session, ids: Collection[str]) -> Verified:
    """Read the files of these snapshots of a lab whose lock is held, each once; errors as `commands.verify`."""
    manifests, unreadable = session.snapshot_store.all()
    files = _Files()
    damage = [Damage(f"{each.id}.json: {each.why}", (each.id,)) for each in unreadable]
    for manifest in manifests:
        try:
            parts = _parts(session, manifest)
        except (MachineError, NotFound) as error:
            damage.append(Damage(_clause(error), (manifest.name,)))
            continue
        files.add(manifest, parts)
        if manifest.id in ids:
            files.read |= {part.name: part for part in parts}
        if manifest.id == session.snapshot_store.current:
            files.below_lab = {part.name for part in parts if part.kind == PartKind.DISK}
    damage += _judged(files, _Reader(session, files).run())
    order = [(m.id, m.name) for m in manifests] + [(each.id, each.id) for each in unreadable]
    looked_at = tuple(name for identity, name in order if identity in ids)
    damage = [each for each in _joined(damage) if set(each.snapshots) & set(looked_at)]
    damaged = {name for each in damage for name in each.snapshots}
    return Verified(
        looked_at,
        tuple(name for _, name in order if name in damaged),
        tuple(damage),
        len(files.read),
        sum(part.size for part in files.read.values()),
    )


def _parts(session: Session, manifest: Manifest) -> list[Part]:
    """The files of a snapshot.

    Raises:
        MachineError, NotFound: one is missing, or they are not those that its manifest lists.
    """
    nodes = {node.name for node in manifest.nodes}
    parts = [part for part in session.captures.parts(manifest.id) if part.node in nodes]
    if problems := part_problems(manifest, parts):
        raise MachineError("; ".join(problems), hint=READ_HINT)
    return parts


class _Reader:
    """Reads files: several nodes at once, the files of each one after another."""

    def __init__(self, session: Session, files: _Files) -> None:
        self._session = session
        self._files = files
        self._stopped = threading.Event()

    def run(self) -> Found:
        nodes = list(dict.fromkeys(part.node for part in self._files.read.values()))
        by_node = map_parallel(self._node, nodes, most=WORKERS, stop=self._stopped.set)
        return {name: outcome for found in by_node.values() for name, outcome in found.items()}

    def _node(self, node: str) -> Found:
        events = self._session.events
        parts = [part for part in self._files.read.values() if part.node == node]
        found: dict[str, str | MachineError] = {}
        events.add(node, PHASE, "begin")
        for number, part in enumerate(parts, 1):
            progress = Progress(events.tell, node, PHASE, part.size, f"file {number} of {len(parts)}, ")
            try:
                found[part.name] = digest(self._counted(part, progress))
            except MachineError as error:
                found[part.name] = error
        damaged = [name for name, outcome in found.items() if self._files.deceived(name, outcome)]
        events.add(node, PHASE, "failed" if damaged else "done", ", ".join(damaged))
        return found

    def _counted(self, part: Part, progress: Progress) -> Iterator[tuple[int, bytes | memoryview]]:
        for at, data in self._session.captures.content(part):
            if self._stopped.is_set():
                raise CancelledError
            progress(len(data))
            yield at, data


def _judged(files: _Files, found: Found) -> list[Damage]:
    """What reading the files has shown to be damaged."""
    broken = {name: names for name, outcome in found.items() if (names := files.deceived(name, outcome))}
    damage = []
    for name, snapshots in broken.items():
        part, outcome = files.read[name], found[name]
        if part.base in broken:
            continue  # it reads the other's bytes; its snapshots are counted there
        if isinstance(outcome, MachineError):
            why = _clause(outcome)
        else:
            why = f"{name} has changed: its digest is {outcome}, it was {files.recorded[name][snapshots[0]]}"
        if part.base and part.base not in found:
            why += f"; or it is {part.base} that has changed, of which it is a delta"
        suspect = [delta for delta in sorted(files.deltas.get(name, ())) if delta in broken or delta not in found]
        needing = dict.fromkeys([*snapshots, *(snapshot for delta in suspect for snapshot in files.recorded[delta])])
        damage.append(Damage(why, tuple(needing), name, part.node, name in files.below_lab))
    return damage


def _joined(damage: Sequence[Damage]) -> list[Damage]:
    """The same, with one entry for what several snapshots lack."""
    found: dict[str, Damage] = {}
    for each in damage:
        known = found.get(each.why)
        found[each.why] = replace(known, snapshots=(*known.snapshots, *each.snapshots)) if known else each
    return list(found.values())


def _clause(error: LabError) -> str:
    return "; ".join((error.message, *error.details))
