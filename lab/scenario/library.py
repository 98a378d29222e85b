"""Scenarios on disk: the shipped ones by name, anyone's by path or from standard input, with their add-ons."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import resources
from lab.components.addons import addons
from lab.components.cni import networks
from lab.errors import Advice, NotFound, Remedy, ScenarioError, UsageError
from lab.files import read_limited
from lab.scenario.catalog import Catalog
from lab.scenario.manifests import read_manifests, refuse_missing_namespaces
from lab.scenario.mirror_access import MOST_BYTES as ACCESS_BYTES
from lab.scenario.mirror_access import MirrorAccess, parse_ca, parse_login
from lab.scenario.model import Mirror, Scenario
from lab.scenario.parser import parse_scenario
from lab.scenario.schema import did_you_mean
from lab.scenario.yaml_source import MANIFEST_BYTES, MAX_BYTES, manifest_budget
from lab.text import shortened, visible

SUFFIXES = (".yaml", ".yml")
STANDARD_INPUT = "-"
_PIPE = "klab reads a regular file, or standard input where the name is -"
# What kubectl kustomize takes for the description of a folder.
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_BESIDE_MIRRORS = "ca (certificates in PEM) and login (USER:PASSWORD in one line) name files in the scenario's folder"
_BESIDE = "add-ons are files in the scenario's folder, named relative to it; copy them there"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario that was read: the text it came from, and in order the objects of those add-ons that are manifests.

    `mirror_access` has by registry what its mirror is asked with, where it wants something.
    """

    scenario: Scenario
    text: str
    path: Path
    addons: Sequence[dict[str, Any]] = ()
    mirror_access: Mapping[str, MirrorAccess] = field(default_factory=dict, repr=False)


# Gives the manifests that a folder with a kustomization describes, as `kubectl kustomize` does.
Kustomize = Callable[[Path], str]


def shipped_names() -> list[str]:
    """The names of the scenarios that klab ships, in order."""
    return sorted(file.stem for file in resources.path("scenarios").glob("*.yaml"))


def find_scenario(name: str) -> Path:
    """The file that a person means: a shipped scenario's name, or a path.

    Raises:
        NotFound: there is neither; the hint names a close one.
        UsageError: it is a folder, or an address.
    """
    # A bare word is a shipped name first; a path (./1m2w, x.yaml) never is.
    if name in shipped_names():
        return resources.path("scenarios") / f"{name}.yaml"
    shown = shortened(visible(name), 80)
    if "://" in name:
        raise UsageError(
            f"{shown} is an address; klab reads files", hint=("curl -fsSL ADDRESS | ", Remedy("create", options=("-",)))
        )
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            raise UsageError(f"{shown} is a folder; name a scenario file in it", hint=_files_in(path))
        if path.exists():
            return path
    except (OSError, ValueError) as error:
        raise NotFound(
            f"there is no scenario {shown!r}",
            details=[visible(str(error))],
            hint=(Remedy("scenarios"), " lists those that come with klab"),
        ) from None
    close = did_you_mean(Path(name).stem, shipped_names())
    hint = f"shipped are: {', '.join(shipped_names())}{close}"
    raise NotFound(f"there is no file {shown} and no shipped scenario of that name", hint=hint)


def read_text(path: Path, *, most: int = MAX_BYTES, hint: Advice = _PIPE) -> str:
    """The text of a scenario file, or of an add-on.

    Args:
        path: the file.
        most: how many bytes it may have.
        hint: what to do where it is not a regular file, or too large.

    Raises:
        NotFound: there is no such file.
        UsageError: it is not a regular file, too large, cannot be read, or is not UTF-8; the message tells where.
    """
    try:
        raw = read_limited(path, most, hint=hint)
    except OSError as error:
        raise UsageError(
            f"{visible(str(path))} cannot be read",
            details=[error.strerror or str(error)],
            hint="change its permissions so that you can read it",
        ) from None
    return _decoded(raw, str(path))


def _no_kustomize(folder: Path) -> str:
    raise ScenarioError(
        f"the add-on {visible(str(folder))} is a folder", hint="name the files in it; kubectl kustomize writes one"
    )


def load_scenario(name: str, catalog: Catalog, kustomize: Kustomize = _no_kustomize) -> Loaded:
    """Read a scenario by shipped name or path, or from standard input, and the add-ons it names.

    Args:
        name: `-` is standard input; its add-ons are relative to the current folder.
        catalog: as for `parse_scenario`.
        kustomize: builds add-ons that are folders.

    Raises:
        NotFound, UsageError: as `find_scenario` and `read_text`.
        ScenarioError: it cannot be used, or one of its add-ons cannot.
        LabError: what `kustomize` raises.
    """
    if name == STANDARD_INPUT:
        path, source, folder = Path(name), "standard input", Path()
        text = _standard_input()
    else:
        path = find_scenario(name)
        source, folder = visible(str(path)), path.resolve().parent
        text = read_text(path)
    scenario = parse_scenario(text, catalog, source=source)
    known = [addons()[name] for name in scenario.addons if name in addons()]
    objects = _addons(folder, [name for name in scenario.addons if name not in addons()], kustomize)
    others = (space for addon in known for space in addon.namespaces)
    refuse_missing_namespaces(objects, [*networks()[scenario.kubernetes.cni].namespaces, *others])
    return Loaded(scenario, text, path, objects, _mirror_access(folder, scenario.mirrors))


def _standard_input() -> str:
    try:
        # Python has None there where the descriptor is closed.
        raw = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin is not None else b""
    except OSError as error:
        raise UsageError(
            "standard input cannot be read", details=[error.strerror or str(error)], hint="pipe one scenario file in"
        ) from None
    if len(raw) > MAX_BYTES:
        raise UsageError(
            f"standard input has more than {MAX_BYTES // 1024} KiB; too large for a scenario",
            hint="pipe one scenario file in",
        )
    return _decoded(raw, "standard input")


def _decoded(raw: bytes, source: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ScenarioError(
            f"{visible(source)} is not UTF-8 text",
            details=[f"line {line}: byte 0x{raw[error.start]:02x} begins no character"],
            hint="save the file as UTF-8 in your editor",
        ) from None


def _files_in(folder: Path) -> str:
    found = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
    return f"there are: {visible(', '.join(found[:10]))}" if found else "there is no YAML file in it"


def _no_addon(name: str) -> Advice:
    """What to do about an add-on that is neither a file nor known."""
    return f"klab knows by name: {', '.join(addons())}{did_you_mean(name, list(addons()))}; {_BESIDE}"


def _addons(folder: Path, names: Sequence[str], kustomize: Kustomize) -> list[dict[str, Any]]:
    """The Kubernetes objects of a scenario's add-ons, which share one limit.

    Raises:
        ScenarioError: a file is missing, outside of the folder, or not fit to be applied.
        UsageError: as `read_text`.
    """
    found: list[dict[str, Any]] = []
    room, budget = MANIFEST_BYTES, manifest_budget()
    for name in names:
        path = _inside(folder, name, "the add-on", _no_addon(name))
        shown = visible(str(path))
        text = _kustomized(path, room, kustomize) if path.is_dir() else _addon_text(path, room, _no_addon(name))
        room -= len(text.encode())
        found += read_manifests(text, shown, budget)
    return found


def _mirror_access(folder: Path, mirrors: Mapping[str, Mirror]) -> dict[str, MirrorAccess]:
    """What mirrors are asked with, by registry, where they want something.

    Raises:
        ScenarioError: a file is missing, outside of the folder, or does not hold what it should.
        UsageError: as `read_text`.
    """
    found = {}
    for registry, each in mirrors.items():
        if each.ca or each.login:
            what = f"of the mirror of {registry}"
            ca = _checked(folder, each.ca, f"the CA {what}", parse_ca)
            found[registry] = MirrorAccess(ca, _checked(folder, each.login, f"the login {what}", parse_login))
    return found


def _checked(folder: Path, name: str | None, what: str, parse: Callable[[str], str]) -> str:
    if name is None:
        return ""
    path = _inside(folder, name, what, _BESIDE_MIRRORS)
    try:
        return parse(_beside(path, what, ACCESS_BYTES, _BESIDE_MIRRORS))
    except ValueError as error:
        raise ScenarioError(
            f"{what}, {visible(str(path))}, cannot be used", details=[str(error)], hint=_BESIDE_MIRRORS
        ) from None


def _inside(folder: Path, name: str, what: str, hint: Advice) -> Path:
    """A file or folder that a scenario names; errors as `_addons`."""
    shown = shortened(visible(name), 80)
    if "://" in name:
        raise ScenarioError(
            f"{what} {shown} is an address; klab reads files",
            hint="curl -fsSLO ADDRESS in the scenario's folder, and name the file: a lab is then the same each time",
        )
    try:
        path, inside = (folder / name).resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError):
        raise ScenarioError(f"{what} {shown} does not exist", hint=hint) from None
    if not path.is_relative_to(inside):
        raise ScenarioError(f"{what} {shown} is outside of the scenario's folder", hint=hint)
    return path


def _kustomized(path: Path, room: int, kustomize: Kustomize) -> str:
    """The manifests of a folder; errors as `_addons`."""
    shown = visible(str(path))
    if not any((path / name).is_file() for name in KUSTOMIZATIONS):
        raise ScenarioError(
            f"the add-on {shown} is a folder without a kustomization.yaml", hint="name the files in it one by one"
        )
    text = kustomize(path)
    if len(text.encode()) > room:
        raise _too_large(shown)
    return text


def _too_large(shown: str) -> ScenarioError:
    limit = MANIFEST_BYTES // 1024 // 1024
    return ScenarioError(f"the add-ons are larger than {limit} MiB in all, with {shown}", hint="leave some of them out")


def _addon_text(path: Path, room: int, hint: Advice) -> str:
    shown = visible(str(path))
    if path.is_file() and path.stat().st_size > room:
        raise _too_large(shown)
    return _beside(path, "the add-on", room, hint)


def _beside(path: Path, what: str, most: int, hint: Advice) -> str:
    """The text of a file that a scenario names; errors as `read_text`."""
    try:
        return read_text(path, most=most, hint=hint)
    except NotFound:
        raise ScenarioError(f"{what} {visible(str(path))} does not exist", hint=hint) from None
