"""What klab addon prints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lab.app import addons
from lab.app.labs import Labs, enter
from lab.cli.terminal.output import echo, echo_json, note, table
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.cli.terminal.words import seconds_in
from lab.scenario.sizes import human

if TYPE_CHECKING:
    from lab.app.addons import State
    from lab.cluster.lab import Lab
    from lab.images.record import LabImage
    from lab.store import Home


def run_list(name: str | None, *, as_json: bool) -> None:
    """List the add-ons of a lab, and those that it could have."""
    lab = Labs().find(name)
    enter(lab, note=note)
    found = addons.listed(lab)
    if as_json:
        echo_json({"lab": lab.name, "addons": [_row(each) for each in found]})
        return
    lines = [[each.addon.name, each.addon.version, _state(each), each.addon.summary] for each in found]
    echo(table(["add-on", "version", "state", "what it gives"], lines))
    for each in found:
        for line in each.missing:
            note(f"{each.addon.name}: {line}")


def _row(state: State) -> dict[str, Any]:
    return {
        "name": state.addon.name,
        "version": state.addon.version,
        "summary": state.addon.summary,
        "installed": state.installed,
        "works": state.installed and not state.missing,
        "missing": list(state.missing),
    }


def _state(state: State) -> str:
    if not state.installed:
        return "-"
    return "does not work" if state.missing else "works"


def run_add(lab: Lab, names: Sequence[str], *, timeout: str | None, as_json: bool) -> None:
    """Bring add-ons to a lab, and print the result."""
    began, limit = time.monotonic(), seconds_in(timeout)
    found = addons.for_lab(lab, names, note)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="waits") as listener:
        done = addons.add(lab, names, found, timeout=limit, listener=listener)
    seconds = time.monotonic() - began
    if as_json:
        echo(json.dumps({"lab": lab.name, "added": list(done), "seconds": round(seconds, 1)}))
    else:
        note(f"{lab.name} has {', '.join(done)}, which works after {elapsed(seconds)}")


def run_remove(lab: Lab, names: Sequence[str], *, timeout: str | None, as_json: bool) -> None:
    """Remove add-ons from a lab, and print which."""
    limit = seconds_in(timeout)
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="waits") as listener:
        gone = addons.remove(lab, names, timeout=limit, listener=listener)
    if as_json:
        echo(json.dumps({"lab": lab.name, "removed": list(gone)}))
    else:
        note(f"removed from {lab.name}: {', '.join(gone)}")


def run_fetch(home: Home, names: Sequence[str], *, as_json: bool) -> None:
    """Have the images of add-ons here, and print them."""
    found = addons.fetch(home, names, note=note)
    if as_json:
        echo_json([*_images(found)])
        return
    for each in found:
        echo(f"{each.ref}  {each.digest}  {human(max(1, each.size >> 20))}")


def _images(found: Iterable[LabImage]) -> Iterable[dict[str, Any]]:
    return ({"image": each.ref, "digest": each.digest, "size": each.size} for each in found)
