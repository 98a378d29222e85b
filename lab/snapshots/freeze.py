"""Let a lab stand still, keep its state, let it go on: what a snapshot and the one before a restore share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata

from lab.errors import HostError, LabError
from lab.machines.captures import Part, PartKind
from lab.snapshots.check import matched
from lab.snapshots.digest import digests
from lab.snapshots.journal import Attempt
from lab.snapshots.manifest import NodeRecord, PartRecord
from lab.snapshots.session import Power, Session
from lab.waiting import map_parallel

# What the guests write to their disks meanwhile, and klab to its own.
SPARE_BYTES = 256 << 20
CLOCK_SECONDS = 120.0


@dataclass(slots=True)
class Moment:
    """When each node stood still, and when it went on, in seconds since 1970 by the host's clock."""

    suspended: Mapping[str, float] = field(default_factory=dict)
    resumed: Mapping[str, float] = field(default_factory=dict)


def refuse_no_room(session: Session, nodes: Sequence[str]) -> None:
    """Make sure that the RAM of these nodes has room on the disk.

    Raises:
        HostError: it has not; with numbers.
    """
    room = session.machines.captures().room(nodes)
    needed = sum(room.needed.values()) + SPARE_BYTES
    if room.free >= needed:
        return
    raise HostError(
        f"there is no room for a snapshot of lab {session.lab.folder.name!r}",
        details=[
            f"{megabytes(needed)} may be needed, {megabytes(room.free)} are free",
            *(f"{name} has {megabytes(size)} of RAM in use" for name, size in room.needed.items()),
        ],
        hint="klab snapshot prune --keep 3 removes old ones; klab stop before, and no RAM has to be kept",
    )


def megabytes(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MiB".replace(",", " ")


def save(session: Session, attempt: Attempt, identity: str, power: Power) -> Moment:
    """Suspend what runs and keep the state of all. What runs stands still afterwards."""
    moment = Moment()
    session.events.add("", "save", "begin")
    for name in power.running:
        session.events.add(name, "freeze", "begin")
    with session.attempts.step(attempt, "suspend"):
        moment.suspended = session.machines.captures().suspend(power.running)
    with session.attempts.step(attempt, "save"):
        session.machines.captures().capture(identity, power.nodes, lambda node: _say(session, node, "save"))
    return moment


def _say(session: Session, node: str, phase: str) -> None:
    session.events.add(node, phase, "done")


def resume(session: Session, nodes: Sequence[str]) -> dict[str, float]:
    """Let nodes go on that stand still."""
    resumed = session.machines.captures().resume(nodes)
    for name in resumed:
        session.events.add(name, "resume", "done")
    return resumed


def set_clocks(session: Session, nodes: Sequence[str]) -> dict[str, str]:
    """Set the guests' clocks to where they would be had they not stood still, all at once.

    Returns:
        By node why its clock could not be set; empty when all are.
    """

    def one(name: str) -> str:
        try:
            session.machines.set_clock(name, lambda: session.guest_time(session.lab.clock()), CLOCK_SECONDS)
        except LabError as error:
            session.events.add(name, "clock", "failed", error.message)
            return error.message
        session.events.add(name, "clock", "done")
        return ""

    return {name: why for name, why in map_parallel(one, nodes).items() if why}


def describe(session: Session, power: Power, moment: Moment) -> tuple[NodeRecord, ...]:
    """What a manifest says of the nodes, parts apart."""
    platform = session.machines.captures().platform()
    found = []
    for node in session.plan.nodes:
        runs = node.name in power.running
        began = moment.suspended.get(node.name, 0.0)
        found.append(
            NodeRecord(
                name=node.name,
                uuid=node.uuid,
                role=node.role,
                running=runs,
                suspended=began,
                resumed=moment.resumed.get(node.name, began),
                guest_time=session.guest_time(began) if runs else 0.0,
                platform=platform.get(node.name, {}),
                parts=(),
            )
        )
    return tuple(found)


def seal(session: Session, identity: str) -> dict[str, tuple[PartRecord, ...]]:
    """Make sure that what was saved is on disk, and take its digests.

    Returns:
        By node the parts as the manifest has them.
    """
    session.events.add("", "digests", "begin")
    session.machines.captures().finalize(identity)
    parts = session.machines.captures().parts(identity)
    known = known_digests(session, session.snapshot_store.current)
    fresh = [part for part in parts if part.kind == PartKind.MEMORY or part.name not in known]
    found = known | digests(session.machines, fresh)
    session.events.add("", "digests", "done")
    return records(parts, found)


def records(parts: Sequence[Part], found: Mapping[str, str]) -> dict[str, tuple[PartRecord, ...]]:
    """Parts with their digests, by node."""
    by_node: dict[str, list[PartRecord]] = {}
    for part in parts:
        by_node.setdefault(part.node, []).append(PartRecord(part.kind, part.name, part.size, found[part.name]))
    return {node: tuple(parts) for node, parts in by_node.items()}


def known_digests(session: Session, identity: str) -> dict[str, str]:
    """The digests that a snapshot's manifest has of its files, by the names that these have now.

    A layer that was frozen once does not change: its digest of then shows whether it has all the same.
    """
    if not identity or not session.snapshot_store.exists(identity):
        return {}
    try:
        manifest, parts = session.snapshot_store.pick(identity), session.machines.captures().parts(identity)
    except LabError:
        return {}
    return matched(manifest, parts)


def versions(session: Session) -> dict[str, str]:
    """What a snapshot was made with and of."""
    try:
        klab = metadata.version("klab")
    except metadata.PackageNotFoundError:
        klab = "not installed"
    return {"klab": klab, "kubernetes": session.plan.kubernetes.version, "box": session.record.box}
