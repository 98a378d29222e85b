"""Scenarios on disk: the shipped ones by name, anyone's by path, with the add-ons they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import resources
from lab.catalog import Catalog
from lab.errors import NotFound, ScenarioError, UsageError
from lab.reading import parse_scenario
from lab.scenario import Scenario
from lab.shape import did_you_mean

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario that was read: the text it came from, and the objects of its add-ons in order."""

    scenario: Scenario
    text: str
    path: Path
    addons: Sequence[dict[str, Any]] = ()


def shipped_names() -> list[str]:
    """The names of the scenarios that klab ships, in order."""
    return sorted(file.stem for file in resources.path("scenarios").glob("*.yaml"))


def find_scenario(name: str) -> Path:
    """The file that a person means: a shipped scenario's name, or a path.

    Raises:
        NotFound: there is neither; the hint names a close one.
        UsageError: it is a folder.
    """
    # A bare word is a shipped name first; a path (./1m2w, x.yaml) never is.
    if name in shipped_names():
        return resources.path("scenarios") / f"{name}.yaml"
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            raise UsageError(f"{name} is a folder; name a scenario file in it", hint=_files_in(path))
        if path.exists():
            return path
    except (OSError, ValueError) as error:
        raise NotFound(
            f"there is no scenario {name[:80]!r}",
            details=[str(error)],
            hint="klab scenarios lists those that come with klab",
        ) from None
    close = did_you_mean(Path(name).stem, shipped_names())
    hint = f"shipped are: {', '.join(shipped_names())}{close}"
    raise NotFound(f"there is no file {name} and no shipped scenario of that name", hint=hint)


def read_text(path: Path) -> str:
    """The text of a scenario file.

    Raises:
        UsageError: it cannot be read, or is not UTF-8; says where.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read", details=[error.strerror or str(error)], hint="give yourself the right to read it"
        ) from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ScenarioError(
            f"{path} is not UTF-8 text",
            details=[f"line {line}: byte 0x{raw[error.start]:02x} begins no character"],
            hint="save the file as UTF-8 in your editor",
        ) from None


def load_scenario(name: str, catalog: Catalog) -> Loaded:
    """Read a scenario by shipped name or path, and the add-ons it names.

    Raises:
        NotFound, UsageError: as `find_scenario` and `read_text`.
        ScenarioError: it cannot be used, or one of its add-ons cannot.
    """
    path = find_scenario(name)
    text = read_text(path)
    scenario = parse_scenario(text, catalog, source=str(path))
    addons = [item for addon in scenario.addons for item in _manifests(path.parent / addon)]
    return Loaded(scenario, text, path, addons)


def _files_in(folder: Path) -> str:
    found = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
    return f"there are: {', '.join(found[:10])}" if found else "there is no YAML file in it"


def _manifests(path: Path) -> Iterator[dict[str, Any]]:
    """The Kubernetes objects of one add-on file, one for each YAML document.

    Raises:
        ScenarioError: there is no such file, or something in it is no Kubernetes object.
    """
    import yaml

    if not path.is_file():
        raise ScenarioError(f"the add-on {path} does not exist", hint="addons are paths relative to the scenario file")
    try:
        documents = list(yaml.safe_load_all(read_text(path)))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ScenarioError(
            f"the add-on {path} is not YAML",
            details=str(error).splitlines()[-1:],
            hint="it is read as kubectl apply -f would",
        ) from None
    for number, document in enumerate(documents, start=1):
        if document is None:
            continue
        if not _is_object(document):
            raise ScenarioError(
                f"the add-on {path} holds something that is no Kubernetes object (document {number})",
                hint="each document needs apiVersion, kind and metadata.name",
            )
        yield document


def _is_object(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    metadata = document.get("metadata")
    named = isinstance(metadata, dict) and isinstance(metadata.get("name"), str)
    return named and all(isinstance(document.get(part), str) for part in ("apiVersion", "kind"))
