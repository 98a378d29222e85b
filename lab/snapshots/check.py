"""Whether a snapshot can be restored here: everything is checked before anything is touched. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.machines.captures import Part
from lab.plan.model import Plan
from lab.snapshots.manifest import Manifest


def lab_problems(manifest: Manifest, lab_id: str, plan: Plan) -> list[str]:
    """Why a snapshot does not fit a lab, one line each.

    Args:
        manifest: the snapshot's.
        lab_id: the lab's own.
        plan: the lab's nodes as they are now.
    """
    if manifest.lab_id != lab_id:
        return [f"it is of another lab: {manifest.lab} ({manifest.lab_id})"]
    return node_problems(manifest, plan)


def node_problems(manifest: Manifest, plan: Plan) -> list[str]:
    """Why the nodes of a snapshot, of whichever lab, are not those of a plan; arguments as `lab_problems`."""
    there = {node.name: node for node in plan.nodes}
    problems = [f"{name} is in the lab, but not in the snapshot" for name in there if manifest.node(name) is None]
    for node in manifest.nodes:
        now = there.get(node.name)
        if now is None:
            problems.append(f"{node.name} is in the snapshot, but no longer in the lab")
        elif (now.uuid, now.role) != (node.uuid, node.role):
            problems.append(f"{node.name} is another machine now: {now.role} {now.uuid}, not {node.role} {node.uuid}")
    return problems


def part_problems(manifest: Manifest, parts: Sequence[Part]) -> list[str]:
    """Which nodes have other files than the manifest lists, one line each."""
    problems = []
    for node in manifest.nodes:
        wanted = [record.kind for record in node.parts]
        found = [part.kind for part in parts if part.node == node.name]
        if wanted != found:
            problems.append(f"{node.name} has {len(found)} files, its manifest lists {len(wanted)}")
    return problems


def matched(manifest: Manifest, parts: Sequence[Part]) -> dict[str, str]:
    """By name the digest that a manifest has of each file; files are matched by node and position, not by name."""
    found: dict[str, str] = {}
    for node in manifest.nodes:
        mine = [part for part in parts if part.node == node.name]
        if [part.kind for part in mine] == [record.kind for record in node.parts]:
            found |= {part.name: record.digest for part, record in zip(mine, node.parts, strict=True)}
    return found


def unchanged(manifest: Manifest, parts: Sequence[Part]) -> set[str]:
    """The names of files that by their stamp are what the manifest has a digest of; matched as in `matched`."""
    found: set[str] = set()
    for node in manifest.nodes:
        mine = [part for part in parts if part.node == node.name]
        pairs = zip(mine, node.parts, strict=False)
        found |= {part.name for part, record in pairs if part.stamp and part.stamp == record.stamp}
    return found


def digest_problems(known: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Which files are no longer what they were, by name."""
    return [
        f"{name} has changed: its digest is {digest}, it was {known[name]}"
        for name, digest in found.items()
        if known[name] != digest
    ]
