"""A snapshot's manifest: its lab, its time, its nodes, and the digests of its files. Pure.

It is written last and atomically: without a manifest there is no snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from lab import records
from lab.errors import LabError
from lab.machines.captures import PartKind

FORMAT = 1
_MOST = 1 << 60  # more than any size in bytes or time in seconds
_EXPECTED: Mapping[type, str] = {str: "a string", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class PartRecord:
    """A file of a snapshot: its name when it was last looked at, bytes on disk, and the digest of its content.

    `stamp` is that of `Part`, when the digest was taken.
    """

    kind: PartKind
    name: str
    size: int
    digest: str
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of a snapshot.

    `running`: its RAM was kept. It was paused from `suspended` to `resumed`, seconds
    since 1970 by the host's clock, when its own showed `guest_time`; a node that was off was
    never paused and has zeros. `platform` is what its RAM depends on. `parts` are its RAM,
    if it was kept, and its disk's layers from the top down.
    """

    name: str
    uuid: str
    role: str
    running: bool
    suspended: float
    resumed: float
    guest_time: float
    platform: Mapping[str, str]
    parts: tuple[PartRecord, ...]

    @property
    def frozen(self) -> float:
        """For how many seconds it was paused."""
        return self.resumed - self.suspended


@dataclass(frozen=True, slots=True)
class Manifest:
    """One snapshot.

    `id` never changes and names its files, `name` is the person's. `parent` is the id of the snapshot
    that was the lab's current one. `created` is the host's clock, `guest_time` the guests'. `expires`
    are the ends of the first certificate and of the last bootstrap token, seconds since 1970 by
    the guests' clocks, where they were seen: "certificate", "token". `seconds` is how long each
    step took. `missing` is what the lab lacked to be Ready, one line each. `kubernetes` is the lab's Kubernetes with
    what goes with it, by key as plans have it, `upgrading_to` the version that an unfinished upgrade led to.
    """

    id: str
    name: str
    lab_id: str
    lab: str
    scenario: str
    created: float
    guest_time: float
    nodes: tuple[NodeRecord, ...]
    parent: str = ""
    note: str = ""
    auto: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    expires: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    kubernetes: Mapping[str, str] = field(default_factory=dict)
    upgrading_to: str = ""

    @property
    def running(self) -> tuple[str, ...]:
        """The nodes whose RAM was kept."""
        return tuple(node.name for node in self.nodes if node.running)

    @property
    def size(self) -> int:
        """Bytes on disk that are this snapshot's: RAM, and the layers that were frozen for it, not those below."""
        return sum(
            part.size
            for node in self.nodes
            for i, part in enumerate(node.parts)
            if part.kind == PartKind.MEMORY or i == int(node.running)
        )

    @property
    def frozen(self) -> float:
        """For how many seconds the lab was paused: from the first node to the last."""
        still = [node for node in self.nodes if node.running]
        return max(n.resumed for n in still) - min(n.suspended for n in still) if still else 0.0

    def node(self, name: str) -> NodeRecord | None:
        return next((node for node in self.nodes if node.name == name), None)


def to_json(manifest: Manifest) -> str:
    return json.dumps({"format": FORMAT, **asdict(manifest)}, indent=2) + "\n"


def from_json(text: str) -> Manifest:
    """Read a manifest.

    Raises:
        LabError: it is damaged, or its format is of another version of klab.
    """
    try:
        found = records.parse(text)
        version = records.pop_format(found)
        if version != FORMAT:
            raise LabError(f"its format is {version}, this klab knows {FORMAT}", hint="use the klab that made it")
        return _checked(records.build(Manifest, found))
    except ValueError as error:
        raise LabError(f"it is damaged: {error}") from error


def _checked(manifest: Manifest) -> Manifest:
    """The same manifest.

    Raises:
        ValueError: it has no nodes, or a number is out of bounds; the message names it.
    """
    numbers = {"created": manifest.created, "guest_time": manifest.guest_time}
    numbers |= {f"expires.{name}": moment for name, moment in manifest.expires.items()}
    numbers |= {f"seconds.{name}": seconds for name, seconds in manifest.seconds.items()}
    for node in manifest.nodes:
        numbers |= {f"{node.name}.{name}": getattr(node, name) for name in ("suspended", "resumed", "guest_time")}
        numbers |= {f"{node.name}.{part.kind}.{i}": part.size for i, part in enumerate(node.parts)}
    for name, number in numbers.items():
        if not abs(number) < _MOST:
            raise ValueError(f"{name} is out of bounds")
    if not manifest.nodes:
        raise ValueError("it has no nodes")
    return manifest
