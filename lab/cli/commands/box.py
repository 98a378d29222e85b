"""klab box: build, list, verify, trust, rm, prune."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lab.boxes.store import Box
    from lab.store import Home

DEFAULT = "debian-13"
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def box() -> None:
    """Build, list, verify and remove boxes.

    A box is the disk image that nodes start from: Debian, containerd, Kubernetes and all
    container images, nothing left to download.
    """


@box.command()
@click.argument("name", default=DEFAULT)
@click.option("--kubernetes", metavar="VERSION", help="The Kubernetes version; the newest one known if left out.")
@click.option("--rebuild", is_flag=True, help="Take every step again and say whether the result is the same.")
@click.option("--vmdk", is_flag=True, help="Make VirtualBox's disk now instead of when first asked for.")
@_AS_JSON
def build(name: str, kubernetes: str | None, rebuild: bool, vmdk: bool, as_json: bool) -> None:
    """Build the box NAME, or find the one that the same inputs made before.

    \b
    Examples:
      klab box build
      klab box build debian-13 --kubernetes 1.35.4
      klab box build --rebuild
    """
    from lab.boxes.build import build_box
    from lab.boxes.store import ensure_vmdk, list_boxes
    from lab.cli.terminal.output import echo_json, note
    from lab.scenario.catalog import load_catalog
    from lab.store import Home

    home, catalog = Home.default(), load_catalog()
    version = kubernetes.removeprefix("v") if kubernetes else list(catalog.kubernetes)[-1]
    before = [b for b in list_boxes(home) if (b.recipe, b.kubernetes) == (name, version) and not b.origin]
    with _progress() as tell:
        built = build_box(home, catalog, name, version, tell, rebuild=rebuild)
        if vmdk:
            tell("disk for VirtualBox")
            built = ensure_vmdk(home, built)
    report = _describe(built)
    if rebuild and before:
        report["rebuilt"] = _compare(before[0], built)
    if as_json:
        echo_json(report)
        return
    note(f"{built.name} {built.short}, {_gib(built.size)} in {built.folder}")
    if rebuild and before:
        _tell_comparison(report["rebuilt"], note)


@box.command("list")
@_AS_JSON
def list_(as_json: bool) -> None:
    """List the boxes on this machine, newest first, and where each comes from.

    One that came with a checkpoint serves the labs of that checkpoint only; see klab box trust.

    \b
    Examples:
      klab box list
      klab box list --json
    """
    from lab.boxes.store import damaged_boxes, list_boxes
    from lab.cli.terminal.output import echo, echo_json, note, table
    from lab.store import Home

    home = Home.default()
    boxes, damaged = list_boxes(home), damaged_boxes(home)
    if as_json:
        echo_json(
            [*map(_describe, boxes), *({"damaged": error.message, "details": error.details} for error in damaged)]
        )
        return
    if boxes:
        rows = [[b.name, b.short, b.kubernetes, _date(b.created), _gib(b.size), _origin(b)] for b in boxes]
        echo(table(["box", "digest", "kubernetes", "made", "size", "from"], rows))
    elif not damaged:
        note("no box has been built here; klab box build makes one")
    for error in damaged:
        note(f"{error.message}: {error.details[0]}")
        note(f"  {error.hint} removes it")


@box.command()
@click.argument("name", required=False)
@_AS_JSON
def verify(name: str | None, as_json: bool) -> None:
    """Check every byte of a box, or of all boxes, against its manifest.

    NAME is a box's name or the beginning of its digest.

    \b
    Examples:
      klab box verify
      klab box verify debian-13-k8s-1.35.4
    """
    from lab.boxes.store import damaged_boxes, list_boxes
    from lab.boxes.store import verify as verify_box
    from lab.cli.terminal.output import echo_json, note
    from lab.errors import BoxError
    from lab.store import Home

    home = Home.default()
    chosen = [_pick(home, name)] if name else list_boxes(home)
    damaged = [] if name else damaged_boxes(home)
    report: list[dict[str, Any]] = [{"whole": False, "problems": [*error.details]} for error in damaged]
    for each in chosen:
        try:
            verify_box(home, each)
        except BoxError as error:
            damaged.append(error)
            report.append({"box": each.name, "digest": each.digest, "whole": False, "problems": error.details})
        else:
            report.append({"box": each.name, "digest": each.digest, "whole": True, "problems": []})
            if not as_json:
                note(f"{each.name} {each.short} is whole: {len(each.files)} files, {_gib(each.size)}")
    if as_json:
        echo_json(report)
    if len(damaged) == 1:
        raise damaged[0]
    if damaged:
        details = [line for error in damaged for line in (error.message, *(f"  {d}" for d in error.details))]
        raise BoxError(f"{len(damaged)} boxes are damaged", details=details, hint=damaged[0].hint)


@box.command()
@click.argument("name")
@_AS_JSON
def trust(name: str, as_json: bool) -> None:
    """Let a box that came with a checkpoint serve every lab on this machine.

    NAME is its name or the beginning of its digest. Compare the whole digest with what its author
    publishes first: what is on that disk runs in the nodes of every lab made from it.

    \b
    Examples:
      klab box trust 936b754d9724
    """
    from lab.boxes.incoming import trust as trust_box
    from lab.cli.terminal.output import echo_json, note
    from lab.store import Home

    home = Home.default()
    trusted = trust_box(home, _pick(home, name))
    if as_json:
        echo_json(_describe(trusted))
    else:
        note(f"{trusted.name} {trusted.digest} is trusted from now on")


@box.command()
@click.argument("name")
@_AS_JSON
def rm(name: str, as_json: bool) -> None:
    """Remove a box. NAME is its name or the beginning of its digest.

    \b
    Examples:
      klab box rm debian-13-k8s-1.35.4
      klab box rm 936b754d9724
    """
    from lab.boxes.removal import remove
    from lab.cli.terminal.output import echo_json, note
    from lab.store import Home

    home = Home.default()
    chosen = _pick(home, name)
    remove(home, chosen)
    if as_json:
        echo_json({"removed": [chosen.folder.name]})
    else:
        note(f"{chosen.name} {chosen.short} is gone, {_gib(chosen.size)} free again")


@box.command()
@_AS_JSON
def prune(as_json: bool) -> None:
    """Remove boxes that no lab uses and a newer build replaced or a checkpoint brought, and what killed builds left.

    \b
    Examples:
      klab box prune
    """
    from lab.boxes.removal import prune as prune_boxes
    from lab.cli.terminal.output import echo_json, note
    from lab.store import Home

    removed = prune_boxes(Home.default())
    if as_json:
        echo_json({"removed": removed})
        return
    for name in removed:
        note(f"removed {name}")
    if not removed:
        note("nothing to remove")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line for each step as it begins, with the time since the first."""
    from lab.cli.terminal.output import note

    zero = time.monotonic()

    def tell(text: str) -> None:
        seconds = int(time.monotonic() - zero)
        note(f"{seconds // 60:3}:{seconds % 60:02}  {text}")

    yield tell
    tell("done")


def _pick(home: Home, name: str) -> Box:
    from lab.boxes.store import list_boxes
    from lab.errors import Conflict, NotFound

    boxes = list_boxes(home)
    found = [b for b in boxes if b.name == name or (len(name) >= 4 and b.digest.startswith(name))]
    if not found:
        have = ", ".join(f"{b.name} ({b.short})" for b in boxes)
        raise NotFound(f"there is no box {name!r} here", hint=f"built here: {have}" if have else "klab box build")
    if len(found) > 1:
        raise Conflict(
            f"there are {len(found)} boxes called {name}",
            details=[b.short for b in found],
            hint="name one by its digest",
        )
    return found[0]


def _describe(built: Box) -> dict[str, Any]:
    return {
        "name": built.name,
        "recipe": built.recipe,
        "kubernetes": built.kubernetes,
        "digest": built.digest,
        "created": built.created,
        "origin": built.origin or None,
        "bytes": built.size,
        "folder": str(built.folder),
        "disk": str(built.disk),
    }


def _compare(before: Box, after: Box) -> dict[str, Any]:
    from lab.boxes.contents import compare_contents

    differences = compare_contents(before.contents.read_text(), after.contents.read_text())
    return {
        "same_disk": before.digest == after.digest,
        "before": before.digest,
        "differences": [asdict(each) for each in differences],
    }


def _tell_comparison(result: dict[str, Any], note: Callable[[str], None]) -> None:
    if result["same_disk"]:
        note("the rebuild made the same disk, byte for byte")
        return
    note(f"the rebuild differs from {result['before'][:12]} in {len(result['differences'])} files:")
    for each in result["differences"]:
        note(f"  {each['path']}: {each['kind']}")


def _origin(box: Box) -> str:
    return f"checkpoint {box.origin}" if box.origin else "this machine"


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
