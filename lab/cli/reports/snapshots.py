"""What klab snapshot, snapshots and diff print."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lab.app import snapshots
from lab.app.labs import enter
from lab.app.snapshots import Listing
from lab.cli.terminal.output import echo, echo_json, note, table
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.errors import LabError, Remedy
from lab.scenario.sizes import human
from lab.snapshots.tree import Branch, tree

if TYPE_CHECKING:
    from lab.cluster.lab import Lab
    from lab.snapshots.integrity import Verified
    from lab.snapshots.manifest import Manifest
    from lab.snapshots.objects import Difference, Object
    from lab.snapshots.take import Taken

MIB = 1 << 20


def parts_of(seconds: Mapping[str, float]) -> list[str]:
    """How long each part took, one line each."""
    width = max(map(len, seconds), default=0)
    return [f"  {part.ljust(width)}  {took:6.1f} s" for part, took in seconds.items()]


# --- take ---------------------------------------------------------------------------------------------


def run_take(lab: Lab, name: str | None, *, text: str, as_json: bool) -> None:
    """Take a snapshot and print how it went."""
    began = time.monotonic()
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="look") as listener:
        taken = snapshots.take(lab, name, note=text, listener=listener)
    _report_taken(lab, taken, time.monotonic() - began, as_json=as_json)


def _report_taken(lab: Lab, taken: Taken, seconds: float, *, as_json: bool) -> None:
    manifest = taken.manifest
    if as_json:
        result = {"lab": lab.name, "snapshot": summary(manifest, manifest.id), "warnings": taken.warnings}
        echo(json.dumps({**result, "seconds": round(seconds, 1)}))
        return
    paused = f"; the lab was paused for {manifest.frozen:.1f} s" if manifest.running else ", of the disks only"
    note(f"{lab.name}: snapshot {manifest.name} taken after {elapsed(seconds)}{paused}")
    for line in parts_of(manifest.seconds):
        note(line)
    note(f"{human(round(manifest.size / MIB))} on disk; klab restore {lab.name} {manifest.name} restores it")
    for line in taken.warnings:
        note(line)


# --- verify -------------------------------------------------------------------------------------------


def run_verify(lab: Lab, names: Sequence[str], *, as_json: bool) -> None:
    """Verify snapshots and print the result.

    Raises:
        LabError: something is damaged.
    """
    began = time.monotonic()
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="verify") as listener:
        found = snapshots.verify(lab, names, listener=listener)
    seconds = time.monotonic() - began
    if as_json:
        echo(json.dumps(_verified(lab, found, seconds)))
    elif not found.snapshots:
        note(f"{lab.name} has no snapshot yet; klab snapshot {lab.name} takes one")
    elif found.whole:
        what = f"{found.files} files, {human(round(found.size / MIB))}, read in {elapsed(seconds)}"
        note(f"{lab.name}: {', '.join(found.whole)} whole; {what}")
    if found.damage:
        raise _damaged(lab, found)


def _verified(lab: Lab, found: Verified, seconds: float) -> dict[str, Any]:
    return {
        "lab": lab.name,
        "whole": list(found.whole),
        "damaged": list(found.damaged),
        "damage": [asdict(each) for each in found.damage],
        "files": found.files,
        "size": found.size,
        "seconds": round(seconds, 1),
    }


def _damaged(lab: Lab, found: Verified) -> LabError:
    details = []
    for each in found.damage:
        details += [each.why, f"  {', '.join(each.snapshots)} cannot be restored without it"]
        if each.below_lab:
            details.append(
                f"  the disk of {each.node} as it is now may be based on it, too; a restore of a whole snapshot, or "
                f"klab node replace {lab.name} {each.node}, gives it another"
            )
    several = len(found.damaged) > 1
    return LabError(
        f"{'snapshots' if several else 'snapshot'} {', '.join(found.damaged)} of lab {lab.name!r} "
        f"{'are' if several else 'is'} damaged",
        details=details,
        hint=(
            Remedy("snapshot rm", lab=lab.name, options=found.damaged),
            f" removes {'them' if several else 'it'}; journalctl -k shows whether the disk has errors",
        ),
    )


# --- rm, rename, prune ----------------------------------------------------------------------------------


def run_remove(lab: Lab, names: Sequence[str], *, as_json: bool) -> None:
    enter(lab, changes=True, note=note)
    _report_gone(lab, snapshots.remove(lab, names), as_json=as_json)


def run_prune(lab: Lab, keep: int, *, as_json: bool) -> None:
    enter(lab, changes=True, note=note)
    _report_gone(lab, snapshots.prune(lab, keep), as_json=as_json)


def _report_gone(lab: Lab, names: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        echo_json({"lab": lab.name, "removed": list(names)})
    else:
        note(f"{lab.name}: {', '.join(names)} removed" if names else f"{lab.name}: there was nothing to remove")


def run_rename(lab: Lab, old: str, new: str, *, as_json: bool) -> None:
    enter(lab, changes=True, note=note)
    manifest = snapshots.rename(lab, old, new)
    if as_json:
        echo_json({"lab": lab.name, "id": manifest.id, "name": manifest.name})
    else:
        note(f"{lab.name}: {old} is now called {manifest.name}")


# --- the list -----------------------------------------------------------------------------------------


def run_list(lab: Lab, *, as_json: bool) -> None:
    """Print the snapshots of a lab, as a tree or as JSON."""
    enter(lab, note=note)
    found = snapshots.listing(lab)
    if as_json:
        echo_json(
            {
                "lab": lab.name,
                "stands_on": found.name,
                "snapshots": [summary(m, found.current) for m in found.manifests],
                "damaged": [asdict(each) for each in found.damaged],
                "unmerged": found.unmerged,
            }
        )
    elif not found.manifests and not found.damaged:
        note(f"{lab.name} has no snapshot yet; klab snapshot {lab.name} takes one")
    else:
        echo(_drawn(lab, found))


def _drawn(lab: Lab, found: Listing) -> str:
    rows = []
    for text, manifest in _limbs(tree(found.manifests)):
        mark = "* " if manifest.id == found.current else "  "
        rows.append([mark + text, _when(manifest), human(round(manifest.size / MIB)), _kept(manifest), manifest.note])
    rows += [[f"  {each.id}", "", "", "DAMAGED", each.why] for each in found.damaged]
    lines = [table(["  name", "taken", "size", "keeps", "note"], rows)]
    total = sum(manifest.size for manifest in found.manifests)
    where = f"{lab.name} is based on {found.name or 'none of them'}"
    lines.append(f"{where}; {human(round(total / MIB))} in all")
    lines += found.unmerged
    if found.unmerged:
        keep = sum(not manifest.auto for manifest in found.manifests)
        lines.append(f"klab snapshot prune {lab.name} --keep {keep} does that")
    return "\n".join(lines)


def _limbs(branches: Sequence[Branch], stem: str = "", *, root: bool = True) -> Iterator[tuple[str, Manifest]]:
    """Each snapshot with its name as the tree draws it."""
    for i, branch in enumerate(branches):
        last = i == len(branches) - 1
        yield (
            branch.manifest.name if root else f"{stem}{'`-' if last else '|-'} {branch.manifest.name}",
            branch.manifest,
        )
        inner = "" if root else stem + ("   " if last else "|  ")
        yield from _limbs(branch.above, inner, root=False)


def _when(manifest: Manifest) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.created))


def _kept(manifest: Manifest) -> str:
    if not manifest.running:
        return "disks"
    off = len(manifest.nodes) - len(manifest.running)
    return f"RAM and disks, {off} off" if off else "RAM and disks"


def summary(manifest: Manifest, current: str) -> dict[str, Any]:
    """A manifest for programs: everything but the files' digests; sizes in bytes, times in seconds."""
    nodes = [{key: value for key, value in asdict(node).items() if key != "parts"} for node in manifest.nodes]
    return {
        **asdict(manifest),
        "nodes": nodes,
        "size": manifest.size,
        "frozen": round(manifest.frozen, 3),
        "stands_here": manifest.id == current,
    }


# --- diff ---------------------------------------------------------------------------------------------


def run_diff(lab: Lab, first: str, second: str | None, *, as_json: bool) -> None:
    """Print what differs between two snapshots, or a snapshot and now."""
    enter(lab, note=note)
    found = snapshots.diff(lab, first, second)
    if as_json:
        kinds = {name: [asdict(each) for each in getattr(found, name)] for name in ("added", "removed", "changed")}
        echo_json({"lab": lab.name, "first": first, "second": second or snapshots.NOW, **kinds})
    elif found.none:
        note(f"no object differs between {first} and {second or snapshots.NOW}")
    else:
        echo("\n".join(_changes(found)))


def _changes(found: Difference) -> list[str]:
    marked = [(each, "+") for each in found.added]
    marked += [(each, "-") for each in found.removed]
    marked += [(each, "~") for each in found.changed]
    return [f"{mark} {_words(each)}" for each, mark in sorted(marked)]


def _words(each: Object) -> str:
    return f"{each.namespace}: {each.kind} {each.name}"
