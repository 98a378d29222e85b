"""Pause a lab, save its state, resume it, describe it: what a snapshot and the one before a restore share.

Most of it works on machines and their captures alone, and uses no lab and no journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import PurePath

from lab.cluster.clients.api import Api
from lab.cluster.events import Journal
from lab.cluster.wait.ready import Readiness
from lab.components.cni import network
from lab.errors import HostError, LabError, Remedy
from lab.machines.captures import Captures, Part, PartKind
from lab.machines.protocol import Machines
from lab.plan.model import Plan
from lab.snapshots.check import matched
from lab.snapshots.digest import digests
from lab.snapshots.manifest import Manifest, NodeRecord, PartRecord
from lab.snapshots.session import Power, Session
from lab.waiting import Deadline, map_parallel, poll

# What the guests write to their disks meanwhile, and klab to its own.
SPARE_BYTES = 256 << 20
CLOCK_SECONDS = 120.0
# A slow guest that does not answer at once does not make its lab a broken one.
LOOK_SECONDS = 6.0
LOOK_AGAIN_SECONDS = 2.0

Step = Callable[[str], AbstractContextManager[object]]


@dataclass(slots=True)
class Moment:
    """When each node was suspended and resumed, in seconds since 1970 by the host's clock."""

    suspended: Mapping[str, float] = field(default_factory=dict)
    resumed: Mapping[str, float] = field(default_factory=dict)


def refuse_no_room(captures: Captures, nodes: Sequence[str], lab: str) -> None:
    """Make sure that the RAM of these nodes fits on the disk.

    Args:
        captures: the lab's.
        nodes: those that run.
        lab: the lab's name.

    Raises:
        HostError: it does not; with numbers.
    """
    room = captures.room(nodes)
    needed = sum(room.needed.values()) + SPARE_BYTES
    if room.free >= needed:
        return
    raise HostError(
        f"there is no room for a snapshot of lab {lab!r}",
        details=[
            shortage(needed, room.free, room.folder),
            *(f"{name} has {megabytes(size)} of RAM in use" for name, size in room.needed.items()),
        ],
        hint=(
            Remedy("snapshot prune", options=("--keep", "3")),
            " removes old ones; ",
            Remedy("stop"),
            " before, and no RAM has to be kept",
        ),
    )


def shortage(needed: int, free: int, folder: PurePath) -> str:
    """What the file system of a folder lacks, as a line; `needed` and `free` are bytes."""
    return (
        f"{megabytes(needed)} may be needed, {megabytes(free)} are free in {folder}: "
        f"{megabytes(needed - free)} are missing"
    )


def megabytes(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MiB".replace(",", " ")


def save(captures: Captures, events: Journal, step: Step, identity: str, power: Power) -> Moment:
    """Suspend the running nodes and save the state of all; those that ran are paused afterwards.

    Args:
        captures: the lab's.
        events: where each step of each node is noted.
        step: entered with the name of each step, "suspend" and "save", before it begins.
        identity: the capture's key.
        power: which nodes run.
    """
    moment = Moment()
    events.add("", "save", "begin")
    for name in power.running:
        events.add(name, "freeze", "begin")

    def saved(node: str) -> None:
        events.add(node, "save", "done")

    with step("suspend"):
        moment.suspended = captures.suspend(power.running)
    with step("save"):
        captures.capture(identity, power.nodes, saved)
    return moment


def resume(captures: Captures, events: Journal, nodes: Sequence[str]) -> dict[str, float]:
    """Resume paused nodes; returns when each was, in seconds since 1970."""
    resumed = captures.resume(nodes)
    for name in resumed:
        events.add(name, "resume", "done")
    return resumed


def set_clocks(
    machines: Machines, events: Journal, guest_now: Callable[[], float], nodes: Sequence[str]
) -> dict[str, str]:
    """Set the guests' clocks to the time they would show if they had not been paused, all in parallel.

    Args:
        machines: the lab's.
        events: where each is noted.
        guest_now: what the clocks should show when it is asked, in seconds since 1970.
        nodes: those that run.

    Returns:
        By node why its clock could not be set; empty when all are.
    """

    def one(name: str) -> str:
        try:
            machines.set_clock(name, guest_now, CLOCK_SECONDS)
        except LabError as error:
            events.add(name, "clock", "failed", error.message)
            return error.message
        events.add(name, "clock", "done")
        return ""

    return {name: why for name, why in map_parallel(one, nodes).items() if why}


def not_ready(api: Api, plan: Plan, machines: Machines, running: Sequence[str]) -> tuple[str, ...]:
    """What the lab lacks to be Ready, one line each, as far as the API server tells: a few looks, no wait."""
    if plan.bootstrap != "full" or not running:
        return ()
    readiness = Readiness(plan, api, machines, nodes=running)
    missing: list[str] = []

    def ready() -> bool:
        nonlocal missing
        try:
            readiness.pass_over()
            missing = readiness.nodes()
            if network(plan.kubernetes.cni).present:
                missing += readiness.system_pods()
        except LabError as error:
            missing = [error.message]
        return not missing

    poll(ready, Deadline.after(LOOK_SECONDS), every=LOOK_AGAIN_SECONDS)
    return tuple(missing)


def build_manifest(
    session: Session,
    identity: str,
    power: Power,
    moment: Moment,
    name: str,
    *,
    note: str = "",
    auto: bool = False,
    missing: Sequence[str] = (),
) -> Manifest:
    """A manifest without digests; its snapshot lies on the lab's current one."""
    created = min(moment.suspended.values(), default=session.lab.clock())
    return Manifest(
        id=identity,
        name=name,
        lab_id=session.record.id,
        lab=session.record.name,
        scenario=session.plan.scenario,
        created=created,
        guest_time=session.guest_time(created),
        nodes=describe(session.plan, session.captures.platform(), power, moment, session.guest_time),
        parent=session.snapshot_store.current,
        note=note,
        auto=auto,
        versions=versions(session.plan, session.record.box),
        seconds=dict(session.attempts.seconds),
        missing=tuple(missing),
        kubernetes=session.plan.kubernetes.versions.as_data(),
        upgrading_to=session.record.upgrading_to,
    )


def with_digests(session: Session, draft: Manifest) -> Manifest:
    """The manifest with the digests of what was saved."""
    parts = seal(session.machines, session.events, draft.id, known_digests(session))
    nodes = tuple(replace(node, parts=parts[node.name]) for node in draft.nodes)
    return replace(draft, nodes=nodes)


def describe(
    plan: Plan,
    platform: Mapping[str, Mapping[str, str]],
    power: Power,
    moment: Moment,
    guest_time: Callable[[float], float],
) -> tuple[NodeRecord, ...]:
    """The nodes as a manifest describes them, without their files.

    Args:
        plan: the lab's.
        platform: what saved RAM depends on, by node.
        power: which nodes ran.
        moment: when they were suspended and resumed.
        guest_time: the guests' time at a moment of the host's.
    """
    found = []
    for node in plan.nodes:
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
                guest_time=guest_time(began) if runs else 0.0,
                platform=platform.get(node.name, {}),
                parts=(),
            )
        )
    return tuple(found)


def seal(
    machines: Machines, events: Journal, identity: str, known: Mapping[str, str]
) -> dict[str, tuple[PartRecord, ...]]:
    """Make sure that what was saved is on disk, and take its digests.

    Args:
        machines: the lab's.
        events: where it is noted.
        identity: the capture's.
        known: by name the digests of files that have not changed since they were taken; RAM is read anyway.

    Returns:
        By node the files as the manifest has them.
    """
    events.add("", "digests", "begin")
    machines.captures().finalize(identity)
    parts = machines.captures().parts(identity)
    fresh = [part for part in parts if part.kind == PartKind.MEMORY or part.name not in known]
    found = {**known, **digests(machines, fresh)}
    events.add("", "digests", "done")
    return records(parts, found)


def records(parts: Sequence[Part], found: Mapping[str, str]) -> dict[str, tuple[PartRecord, ...]]:
    """Parts with their digests, by node."""
    by_node: dict[str, list[PartRecord]] = {}
    for part in parts:
        by_node.setdefault(part.node, []).append(
            PartRecord(part.kind, part.name, part.size, found[part.name], part.stamp)
        )
    return {node: tuple(parts) for node, parts in by_node.items()}


def known_digests(session: Session) -> dict[str, str]:
    """The digests that the current snapshot's manifest has of its files, by the names that these have now.

    A frozen layer does not change: the digest taken then still tells whether it has.
    """
    current = session.snapshot_store.current
    if not current or not session.snapshot_store.exists(current):
        return {}
    try:
        manifest, parts = session.snapshot_store.pick(current), session.captures.parts(current)
    except LabError:
        return {}
    return matched(manifest, parts)


def versions(plan: Plan, box: str) -> dict[str, str]:
    """The versions that a snapshot was made with, and the box of its lab."""
    try:
        klab = metadata.version("klab")
    except metadata.PackageNotFoundError:
        klab = "not installed"
    return {"klab": klab, "kubernetes": plan.kubernetes.version, "box": box}
