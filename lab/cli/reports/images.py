"""What klab image prints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lab.app import images
from lab.app.images import Asked, Wanted
from lab.app.labs import Labs, enter
from lab.cli.terminal.output import echo, echo_json, note, table
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.scenario.sizes import human
from lab.store import Home

if TYPE_CHECKING:
    from lab.app.images import Kept, LabImage, Loaded
    from lab.cluster.lab import Lab

# What a person reads in the place of `Asked.place`.
_PLACES = {
    "lab": "in the lab",
    "box": "in the box",
    "machine": "on this machine: klab image load",
    "registry": "in its registry: klab image load",
    "nowhere": "not to be had",
    "invalid": "not an image",
}
_MOST_USES = 3


def run_load(lab: Lab, wanted: Wanted, *, as_json: bool) -> None:
    """Bring images to a lab's nodes, and print the result."""
    images.refuse_unfit(lab)
    words = wanted.words
    found: list[LabImage] = []
    if words:
        found = images.fetch(lab.home, wanted, mirrors=dict(lab.plan.mirrors), note=note)
    done = _bring(lab, found, as_json=as_json)
    if as_json:
        echo(json.dumps(_loaded(lab, found, done)))
    elif not words and not done.images:
        note(f"klab has brought no image to {lab.name} yet; klab image load {lab.name} IMAGE brings one")
    elif not done.nodes:
        note(f"every node of {lab.name} has {_named(found) or 'all of its images'} already")
    else:
        what = _named(found) or "all of its images"
        note(f"every node of {lab.name} has {what} after {elapsed(done.seconds)}, {human(done.sent >> 20)} were sent")


def _bring(lab: Lab, found: Sequence[LabImage], *, as_json: bool) -> Loaded:
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="waits") as listener:
        return images.load(lab, found, listener=listener)


def _loaded(lab: Lab, found: Iterable[LabImage], done: Loaded) -> dict[str, Any]:
    return {
        "lab": lab.name,
        "images": [_image(each) for each in found],
        "nodes": list(done.nodes),
        "sent": done.sent,
        "seconds": round(done.seconds, 1),
    }


def _image(image: LabImage) -> dict[str, Any]:
    return {"image": image.ref, "digest": image.digest, "size": image.size, "own_build": image.own_build}


def _named(found: Sequence[LabImage]) -> str:
    return ", ".join(each.ref for each in found)


def run_fetch(home: Home, wanted: Wanted, *, as_json: bool) -> None:
    """Fetch images to this machine, and print them."""
    found = images.fetch(home, wanted, note=note)
    if as_json:
        echo_json([_image(each) for each in found])
        return
    for each in found:
        echo(f"{each.ref}  {each.digest}  {human(max(1, each.size >> 20))}")


def run_list(name: str | None, *, as_json: bool) -> None:
    """List the images of a lab."""
    lab = Labs().find(name)
    enter(lab, note=note)
    found = images.listed(lab)
    if as_json:
        rows = [{**_image(each.image), "nodes": dict(each.nodes), "complete": each.complete} for each in found]
        echo_json({"lab": lab.name, "images": rows})
        return
    if not found:
        note(f"klab has brought no image to {lab.name}; klab image load {lab.name} IMAGE brings one")
        return
    lines = [
        [_marked(each.image), each.image.digest[:19], human(max(1, each.image.size >> 20)), _nodes(each.nodes)]
        for each in found
    ]
    echo(table(["image", "digest", "size", "nodes"], lines))
    if not all(each.complete for each in found):
        note(f"klab image load {lab.name} brings what is missing")


def _marked(image: LabImage | Kept) -> str:
    return f"{image.ref} (own build)" if image.own_build else image.ref


def _nodes(nodes: dict[str, bool | None] | Any) -> str:
    lack = [name for name, has in nodes.items() if has is False]
    silent = [name for name, has in nodes.items() if has is None]
    said = [f"missing on {', '.join(lack)}"] if lack else []
    said += [f"not asked: {', '.join(silent)}"] if silent else []
    return "; ".join(said) or "all"


def run_here(*, as_json: bool) -> None:
    """List the images that this machine keeps."""
    found = images.kept(Home.default())
    if as_json:
        echo_json([asdict(each) for each in found])
    elif not found:
        note("this machine keeps no image yet; klab image fetch IMAGE fetches one")
    else:
        lines = [
            [
                _marked(each),
                each.digest[:19],
                human(max(1, each.size >> 20)) if each.size else "damaged",
                _labs(each.labs),
            ]
            for each in found
        ]
        echo(table(["image", "digest", "size", "labs"], lines))


def _labs(labs: Sequence[str]) -> str:
    return ", ".join(labs) or "none"


def run_remove(lab: Lab, words: Sequence[str], *, as_json: bool) -> None:
    """Remove images from a lab's nodes."""
    enter(lab, changes=True, note=note)
    gone = images.remove(lab, words)
    if as_json:
        echo(json.dumps({"lab": lab.name, "removed": [_image(each) for each in gone]}))
    else:
        note(f"removed from {lab.name}: {_named(gone)}; klab image prune frees the room on this machine")


def run_prune(*, as_json: bool) -> None:
    """Remove what no lab has."""
    gone, freed = images.prune(Home.default())
    if as_json:
        echo_json({"removed": gone, "bytes": freed})
    else:
        note(f"removed {len(gone)} images, {human(freed >> 20)}" if gone or freed else "there is nothing to remove")


def run_check(names: Sequence[str], which: str | None, *, load: bool, own_build: bool, ask: bool, as_json: bool) -> int:
    """Tell what manifests ask for; with `load` bring what can be had, with `own_build` klab's own builds as well.

    Returns the exit code.
    """
    home = Home.default()
    lab = Labs(home).find(which) if which is not None else None
    checked = images.check(names, home=home, lab=lab, ask=ask, note=note)
    built = images.buildable(checked) if own_build else []
    if lab is not None and load and (images.loadable(checked) or built):
        images.refuse_unfit(lab)
        found = images.fetch(home, Wanted(images.loadable(checked)), mirrors=dict(lab.plan.mirrors), note=note)
        found += images.fetch(home, Wanted(built, own_build=True), note=note)
        _bring(lab, found, as_json=False)
        checked = images.check(names, home=home, lab=lab, ask=False)
    if as_json:
        rows = [{**asdict(each), "there": each.there} for each in checked.images]
        echo_json({"lab": which or "", "box": checked.box, "images": rows, "left_out": dict(checked.left_out)})
    else:
        _print_checked(checked.images, checked.left_out.items())
        note(f"{len(checked.images) - len(checked.missing)} of {len(checked.images)} images are there")
    return 1 if checked.missing else 0


def _print_checked(found: Sequence[Asked], left_out: Iterable[tuple[str, str]]) -> None:
    for each in found:
        where = _PLACES[each.place]
        echo(f"{each.image}: {where}" + (f" ({each.why})" if each.why else ""))
        if each.own_build:
            echo(f"  klab can build its own: klab image load --own-build {each.image}")
        if not each.there:
            for use in each.uses[:_MOST_USES]:
                echo(f"  {use}")
            if (more := len(each.uses) - _MOST_USES) > 0:
                echo(f"  and {more} more places")
        for use in each.never:
            note(f"  {use}: imagePullPolicy Never asks no registry; IfNotPresent does")
    for name, why in left_out:
        note(f"left out: {name}: {why}")
