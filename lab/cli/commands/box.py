"""klab box: build, list, verify, lock, trust, rm, prune."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lab.components.kubernetes.sources import AUTO, SOURCES

if TYPE_CHECKING:
    from lab.app.boxes import Rebuilt, Verified
    from lab.boxes.manifest import Box

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def box() -> None:
    """Build, list, verify, lock and remove boxes.

    A box is the disk image that nodes start from: Debian, containerd, Kubernetes and all
    container images, nothing left to download; or another distribution's cloud image.
    """


@box.command()
@click.argument("name", required=False)
@click.option(
    "--kubernetes",
    metavar="VERSION",
    help="The Kubernetes version, such as 1.35.4, or 1.35 for its newest patch; if left out, the bundle's or that of a "
    "scenario that names none.",
)
@click.option(
    "--source",
    type=click.Choice(SOURCES),
    default=AUTO,
    show_default=True,
    help="Where Kubernetes comes from: upstream's release, a mirror of it, source, compiled here, or a bundle that "
    "has the whole box.",
)
@click.option(
    "--bundle",
    metavar="PLACE",
    type=click.Path(path_type=Path),
    help="Take the whole box from this bundle, or from a folder with bundles or copied boxes.",
)
@click.option(
    "--image",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The cloud image that the box NAME is made of, which you have downloaded; without it klab says from where.",
)
@click.option(
    "--mirror",
    "mirrors",
    metavar="[NAME=]PLACE",
    multiple=True,
    help="Another place for dl.k8s.io (programs), registry.k8s.io (images), ghcr.io (the pod network's) or github.com "
    "(what other projects publish); without NAME a folder with all.",
)
@click.option(
    "--locked",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Stop where a program or an image is another than in this lock; see klab box lock.",
)
@click.option("--rebuild", is_flag=True, help="Repeat every step and report whether the result is the same.")
@click.option("--vmdk", is_flag=True, help="Create VirtualBox's disk now instead of on first use.")
@_AS_JSON
def build(
    name: str | None,
    kubernetes: str | None,
    source: str,
    bundle: Path | None,
    image: Path | None,
    mirrors: tuple[str, ...],
    locked: Path | None,
    rebuild: bool,
    vmdk: bool,
    as_json: bool,
) -> None:
    """Build the box NAME (debian-13), or find the one that the same inputs made before.

    Building needs root (klab asks sudo), --bundle and --image do not. The box, and all that is kept for the next
    build, is yours. auto takes Kubernetes from a mirror that you name, else from upstream's release, else from source:
    the first of them that this machine reaches. While another build is running, klab says which one, and waits.

    --bundle needs no network. NAME and --kubernetes choose where there are several boxes. A box that somebody else
    built serves the labs of its bundle only, until klab box trust. One that has the disk of --locked is trusted.

    --image makes a box of another distribution's cloud image, for lessons that begin with plain machines (bootstrap:
    none): ubuntu-24.04, rocky-9, centos-7 and others.

    \b
    Examples:
      klab box build
      klab box build debian-13 --kubernetes 1.36
      klab box build --source source
      klab box build --mirror /media/stick
      klab box build --bundle lesson-3.klab
      klab box build ubuntu-24.04 --image noble-server-cloudimg-amd64.img
      klab box build --mirror registry.k8s.io=registry.aliyuncs.com/google_containers
      klab box build --locked debian-13-k8s-1.35.4.lock.json
      klab box build --rebuild
    """
    from lab.app import boxes
    from lab.cli.terminal.output import echo_json, note
    from lab.errors import RootNeeded
    from lab.store import Home

    home = Home.default(gives_back=True)
    try:
        with _progress() as tell:
            done = boxes.build(
                home,
                name,
                kubernetes,
                rebuild=rebuild,
                vmdk=vmdk,
                source=source,
                mirrors=mirrors,
                bundle=bundle,
                locked=locked,
                image=image,
                tell=tell,
            )
    except RootNeeded as needed:
        from lab.cli.terminal.sudo import again_as_root

        sys.exit(again_as_root(needed, home))
    built, rebuilt, taken = done.box, done.rebuilt, done.taken
    if as_json:
        compared = {} if rebuilt is None else {"rebuilt": _comparison(rebuilt)}
        origin = {} if taken is None else {"bundle": str(taken.place), "signer": taken.signer and asdict(taken.signer)}
        echo_json({**_describe(built), **compared, **origin})
        return
    note(f"{built.name} {built.short}, {_gib(built.size)} in {built.folder}")
    if built.origin:
        note(f"somebody else built it: compare its digest with the author's, {built.digest}")
        note(f"klab box trust {built.short} then lets it serve every lab")
    if rebuilt is not None:
        _tell_comparison(rebuilt, note)


@box.command("list")
@_AS_JSON
def list_(as_json: bool) -> None:
    """List the boxes on this machine, newest first, and where each comes from.

    One that came with a bundle serves the labs of that bundle only; see klab box trust.

    \b
    Examples:
      klab box list
      klab box list --json
    """
    from lab.app.boxes import listing
    from lab.cli.terminal.output import echo, echo_json, note, table
    from lab.store import Home

    boxes, damaged = listing(Home.default())
    if as_json:
        echo_json(
            [*map(_describe, boxes), *({"damaged": error.message, "details": error.details} for error in damaged)]
        )
        return
    if boxes:
        rows = [[b.name, b.short, b.kubernetes or "-", _date(b.created), _gib(b.size), _origin(b)] for b in boxes]
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
    from lab.app import boxes
    from lab.cli.terminal.output import echo_json, note
    from lab.errors import BoxError
    from lab.store import Home

    report: list[dict[str, Any]] = []
    damaged: list[BoxError] = []
    for each in boxes.verify(Home.default(), name):
        report.append(_verdict(each))
        if each.error is not None:
            damaged.append(each.error)
        elif each.box is not None and not as_json:
            note(f"{each.box.name} {each.box.short} is whole: {len(each.box.files)} files, {_gib(each.box.size)}")
    if as_json:
        echo_json(report)
    if len(damaged) == 1:
        raise damaged[0]
    if damaged:
        details = [line for error in damaged for line in (error.message, *(f"  {d}" for d in error.details))]
        raise BoxError(f"{len(damaged)} boxes are damaged", details=details, hint=damaged[0].hint)


@box.command()
@click.argument("name", required=False)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write it there; NAME.lock.json if left out.",
)
@_AS_JSON
def lock(name: str | None, output: Path | None, as_json: bool) -> None:
    """Write what a box was made from into a file: every program and every image, with its digest.

    NAME is a box's name or the beginning of its digest; the newest box if left out. klab box build --locked FILE
    stops where it finds another program or image. Debian's packages are not in it. With --json the lock is
    printed, and written only where --output says so.

    \b
    Examples:
      klab box lock
      klab box lock debian-13-k8s-1.35.4 -o course.lock.json
      klab box build --locked course.lock.json
    """
    from lab.app.boxes import lock as lock_box
    from lab.app.boxes import write_lock
    from lab.cli.terminal.output import echo_json, note
    from lab.store import Home

    found = lock_box(Home.default(), name)
    if as_json:
        echo_json(asdict(found))
    if output is not None or not as_json:
        file, made = write_lock(found, output), found.made_from
        note(f"{file}: {len(made.programs)} programs and {len(made.images)} images of {found.box}, from {made.source}")


@box.command()
@click.argument("name")
@_AS_JSON
def trust(name: str, as_json: bool) -> None:
    """Let a box that came with a bundle serve every lab on this machine.

    NAME is its name or the beginning of its digest. Compare the whole digest with what its author
    publishes first: what is on that disk runs in the nodes of every lab made from it.

    \b
    Examples:
      klab box trust 936b754d9724
    """
    from lab.app import boxes
    from lab.cli.terminal.output import echo_json, note
    from lab.store import Home

    trusted = boxes.trust(Home.default(), name)
    if as_json:
        echo_json(_describe(trusted))
    else:
        note(f"{trusted.name} {trusted.digest} is trusted now")


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
    from lab.app import boxes
    from lab.cli.terminal.output import echo_json, note
    from lab.store import Home

    chosen = boxes.remove(Home.default(), name)
    if as_json:
        echo_json({"removed": [chosen.folder.name]})
    else:
        note(f"{chosen.name} {chosen.short} is removed, {_gib(chosen.size)} are free again")


@box.command()
@_AS_JSON
def prune(as_json: bool) -> None:
    """Remove boxes that no lab uses and a newer build replaced or a bundle brought, and what killed builds left.

    \b
    Examples:
      klab box prune
    """
    from lab.app.boxes import prune as prune_boxes
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


def _describe(built: Box) -> dict[str, Any]:
    return {
        "name": built.name,
        "recipe": built.recipe,
        "kubernetes": built.kubernetes or None,
        "digest": built.digest,
        "created": built.created,
        "origin": built.origin or None,
        "made_from": asdict(built.made_from) if built.made_from else None,
        "bytes": built.size,
        "folder": str(built.folder),
        "disk": str(built.disk),
    }


def _verdict(each: Verified) -> dict[str, Any]:
    known = {} if each.box is None else {"box": each.box.name, "digest": each.box.digest, "source": _source(each.box)}
    return {**known, "whole": each.error is None, "problems": [] if each.error is None else list(each.error.details)}


def _comparison(rebuilt: Rebuilt) -> dict[str, Any]:
    return {
        "same_disk": rebuilt.same_disk,
        "before": rebuilt.before.digest,
        "differences": [asdict(each) for each in rebuilt.differences],
    }


def _tell_comparison(rebuilt: Rebuilt, note: Callable[[str], None]) -> None:
    if rebuilt.same_disk:
        note("the rebuild made the same disk, byte for byte")
        return
    note(f"the rebuild differs from {rebuilt.before.short} in {len(rebuilt.differences)} files:")
    for each in rebuilt.differences:
        note(f"  {each.path}: {each.kind}")


def _origin(box: Box) -> str:
    if box.origin:
        return f"came with {box.origin}"
    return f"this machine, {source}" if (source := _source(box)) else "this machine"


def _source(box: Box) -> str | None:
    return box.made_from.source if box.made_from else None


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
