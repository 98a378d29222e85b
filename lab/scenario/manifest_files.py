"""Kubernetes manifests on disk, for looking at what they ask for: files, folders, or standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import NotFound, ScenarioError, UsageError
from lab.scenario.library import STANDARD_INPUT, read_text
from lab.scenario.manifests import read_loosely
from lab.scenario.yaml_source import MANIFEST_BYTES, Budget, manifest_budget
from lab.text import visible

SUFFIXES = (".yaml", ".yml", ".json")
MOST_FILES = 2000
_HINT = "name a file with Kubernetes manifests, a folder of such files, or - for standard input"


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of some files, each file with its own; and why files of a folder were left out, by their names."""

    objects: dict[str, list[dict[str, Any]]]
    left_out: dict[str, str]


def load_manifests(names: Sequence[str]) -> Manifests:
    """Read manifests; in a folder, and in those below, every file that ends as one.

    Raises:
        NotFound: there is no such file, or none in a folder.
        UsageError, ScenarioError: a file that was named is not YAML or too large; all of them together are.
    """
    found = Manifests({}, {})
    budget, room = manifest_budget(), MANIFEST_BYTES
    for name in names:
        path = _path(name)
        if name == STANDARD_INPUT:
            found.objects["standard input"] = read_loosely(_standard_input(), "standard input", budget)
        elif path.is_dir():
            for file in _files(path):
                room = _one_of_folder(found, file, budget, room)
        else:
            shown = visible(name)
            found.objects[shown] = read_loosely(read_text(path, most=room, hint=_HINT), shown, budget)
    return found


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UsageError(f"{visible(name)} names a user that does not exist", hint="write the path out") from None


def _files(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix in SUFFIXES
        and file.is_file()
        and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    )
    if not files:
        raise NotFound(f"there is no manifest in {visible(str(folder))}", hint=_HINT)
    if len(files) > MOST_FILES:
        raise UsageError(f"{visible(str(folder))} has {len(files)} manifests", hint=f"at most {MOST_FILES} are read")
    return files


def _one_of_folder(found: Manifests, file: Path, budget: Budget, room: int) -> int:
    """Read a file of a folder; one that is something else, such as a template, is left out. Returns the room left."""
    shown = visible(str(file))
    try:
        text = read_text(file, most=room, hint="name its folders one by one")
        found.objects[shown] = read_loosely(text, shown, budget)
    except (ScenarioError, UsageError) as error:
        found.left_out[shown] = "; ".join((error.message, *error.details[:1]))
        return room
    return room - len(text.encode())


def _standard_input() -> str:
    raw = sys.stdin.buffer.read(MANIFEST_BYTES + 1) if sys.stdin is not None else b""
    if len(raw) > MANIFEST_BYTES:
        raise UsageError(f"standard input has more than {MANIFEST_BYTES >> 20} MiB", hint=_HINT)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ScenarioError("standard input is not UTF-8 text", hint=_HINT) from None
