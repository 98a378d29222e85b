"""Completion of the names that only this machine knows: labs, nodes, scenarios, images.

A convention instead of a line in each command: an argument called `lab` or `scenario`
completes to those, `words` (of [LAB] NODE ...) to labs and nodes, `snapshots` (of
[LAB] NAME ...) to labs and snapshots, `lab_and_name` to labs: the name is a new one. `lab_and_images` completes
to labs and the images that they have, `lab_and_addons` to labs and add-ons, `lab_and_sources` to labs and files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import click
from click.shell_completion import CompletionItem

from lab.store import Home, LabFolder


def lab_names() -> list[str]:
    """The labs on this machine."""
    return [folder.name for folder in Home.default().existing()]


def node_names() -> list[str]:
    """The nodes of every lab on this machine, each name once."""
    return sorted({name for folder in Home.default().existing() for name in _nodes(folder)})


def snapshot_names() -> list[str]:
    """The snapshots of every lab on this machine, each name once."""
    return sorted({name for folder in Home.default().existing() for name in _snapshots(folder)})


def addon_names() -> list[str]:
    """The add-ons that klab knows."""
    from lab.components.addons import addons

    return list(addons())


def image_names() -> list[str]:
    """The images that klab has brought to the labs on this machine, each name once."""
    return sorted({name for folder in Home.default().existing() for name in _images(folder)})


def scenario_names() -> list[str]:
    """The scenarios that klab ships."""
    from lab.scenario.library import shipped_names

    return shipped_names()


def _nodes(folder: LabFolder) -> list[str]:
    try:
        return [node["name"] for node in json.loads(folder.plan_file.read_text())["nodes"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []  # a damaged lab has no names to offer


def _images(folder: LabFolder) -> list[str]:
    try:
        return [image["ref"] for image in json.loads(folder.images.read_text())["images"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []  # as above


def _snapshots(folder: LabFolder) -> Iterator[str]:
    for file in folder.snapshots.glob("*.json"):
        try:
            yield json.loads(file.read_text())["name"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue  # damaged, or not about a snapshot


class _Completed(click.types.StringParamType):
    def __init__(self, *sources: Callable[[], list[str]], files: bool = False) -> None:
        self._sources = sources
        self._files = files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        try:
            names = [name for source in self._sources for name in source() if name.startswith(incomplete)]
        except Exception:
            names = []  # pressing Tab must never print an error into the command line
        if self._files and not names:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in names]


_ARGUMENTS = {
    "lab": _Completed(lab_names),
    "scenario": _Completed(scenario_names, files=True),
    "scenarios": _Completed(scenario_names, files=True),
    "words": _Completed(lab_names, node_names),
    "lab_and_name": _Completed(lab_names),
    "addons": _Completed(addon_names),
    "lab_and_addons": _Completed(lab_names, addon_names),
    "lab_and_images": _Completed(lab_names, image_names),
    "lab_and_sources": _Completed(lab_names, files=True),
    "snapshots": _Completed(lab_names, snapshot_names),
}


def complete_names(command: click.Command) -> None:
    """Let the arguments of a command complete, by their names."""
    for param in command.params:
        if isinstance(param, click.Argument) and param.name in _ARGUMENTS:
            param.type = _ARGUMENTS[param.name]
