"""What klab can build: boxes, Kubernetes versions, runtimes, network plug-ins.

The catalog is the union of the recipes in `boxes/NAME/recipe.yaml`. It holds names and
versions only; how a box is made from a recipe is `lab.boxes`'s business.

    >>> catalog = load_catalog()
    >>> catalog.kubernetes["1.35.4"].image("pause")
    'registry.k8s.io/pause:3.10.1'
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lab import resources
from lab.components.cni import networks
from lab.components.kubernetes.versions import KEYS, KubernetesVersion
from lab.errors import BoxError
from lab.scenario.cloud_images import CLOUD_IMAGE, CloudImage, read_cloud_image

VERSION = re.compile(r"\d{1,4}\.\d{1,4}\.\d{1,4}")
RECIPE = "recipe.yaml"
# The recipe that another one is like, but for what it says itself.
EXTENDS = "extends"
# In a Kubernetes version's entry, what a box needs to build for it alone (lab.boxes.recipe).
PROGRAMS = "programs"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything a scenario may name. Sequences are sorted: names by alphabet, versions oldest first.

    `recipes` has by box what that box alone can hold; empty in the catalog of one box. `images` has by box the cloud
    image that it is made of; it holds nothing of Kubernetes.
    """

    boxes: tuple[str, ...]
    kubernetes: Mapping[str, KubernetesVersion]
    runtimes: tuple[str, ...]
    cnis: tuple[str, ...]
    recipes: Mapping[str, Catalog] = field(default_factory=dict)
    images: Mapping[str, CloudImage] = field(default_factory=dict)

    def full_version(self, version: str) -> str:
        """The newest known patch of a minor version: "1.35" is "1.35.4"; what is anything else stays as it is."""
        return next((full for full in reversed(list(self.kubernetes)) if full.rpartition(".")[0] == version), version)


@functools.cache
def load_catalog(root: Path | None = None) -> Catalog:
    """Read every recipe that klab ships; once, since they do not change while klab runs.

    Args:
        root: the folder of recipes; by default the one klab was installed with.

    Raises:
        BoxError: a recipe is not readable or lacks something.
    """
    folder = root or resources.path("boxes")
    files = sorted(folder.glob(f"*/{RECIPE}"))
    recipes = []
    for file in files:
        try:
            recipes.append(parse_recipe(read_recipe(file)))
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise BoxError(
                f"the recipe {file.parent.name} cannot be read",
                details=[f"{file}: {error}"],
                hint="correct the file, or install klab again",
            ) from error
    return merge(recipes)


def read_recipe(file: Path) -> Any:
    """What a recipe says, together with what it leaves to the one that it extends.

    Raises:
        OSError: one of the two cannot be read.
        yaml.YAMLError: it is not YAML.
        ValueError: it is not UTF-8, or extends what is no recipe.
    """
    own = _load(file)
    name = own.get(EXTENDS) if isinstance(own, dict) else None
    if name is None:
        return own
    others = [path.parent.name for path in file.parent.parent.glob(f"*/{RECIPE}") if path != file]
    if name not in others:
        raise ValueError(f"{EXTENDS}: {name!r} is not another recipe")
    base = _load(file.parent.parent / name / RECIPE)
    if not isinstance(base, dict) or EXTENDS in base:
        raise ValueError(f"{EXTENDS}: {name} extends a recipe itself")
    return extended(base, own)


def _load(file: Path) -> Any:
    """A file's YAML, through libyaml where PyYAML has it, which is eight times as quick."""
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    return yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506


def extended(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A recipe's keys in place of those of the one that it extends.

    `debian` is taken key by key. Under `kubernetes`, a version without an entry of its own has the other recipe's.
    """
    found = {**base, **own}
    for key in ("debian", "kubernetes"):
        if not isinstance(base.get(key), dict) or not isinstance(found[key], dict):
            raise ValueError(f"{key}: a mapping is missing")
    theirs = base["kubernetes"]
    found["kubernetes"] = {version: parts or theirs.get(version) for version, parts in found["kubernetes"].items()}
    return {**found, "debian": {**base["debian"], **found["debian"]}}


def parse_recipe(data: Any) -> Catalog:
    """The catalog's part of one recipe.

    Args:
        data: the recipe as YAML gives it: keys name, runtimes, cnis, kubernetes; or name and cloud_image.

    Raises:
        ValueError: it has another shape; the message names the key.
    """
    if not isinstance(data, dict):
        raise ValueError("a recipe is a mapping")
    if CLOUD_IMAGE in data:
        name = _text(data, "name")
        return Catalog((name,), {}, (), (), images={name: read_cloud_image(data[CLOUD_IMAGE])})
    versions = data.get("kubernetes")
    if not isinstance(versions, dict) or not versions:
        raise ValueError("kubernetes: a mapping of versions to component versions is missing")
    cnis = _networks(data)
    needed = [key for name, network in networks().items() if name in cnis for key in network.version_keys]
    return Catalog(
        boxes=(_text(data, "name"),),
        kubernetes=MappingProxyType({str(v): _version(v, parts, needed) for v, parts in versions.items()}),
        runtimes=_names(data, "runtimes"),
        cnis=cnis,
    )


def merge(recipes: Iterable[Catalog]) -> Catalog:
    """One catalog of several.

    Raises:
        BoxError: two recipes pin different components for the same Kubernetes version.
    """
    known: dict[str, KubernetesVersion] = {}
    boxes: set[str] = set()
    runtimes: set[str] = set()
    cnis: set[str] = set()
    by_box: dict[str, Catalog] = {}
    images: dict[str, CloudImage] = {}
    for recipe in recipes:
        by_box |= dict.fromkeys(recipe.boxes, recipe)
        images |= recipe.images
        for version, parts in recipe.kubernetes.items():
            if known.setdefault(version, parts) != parts:
                raise BoxError(
                    f"two recipes pin different components for Kubernetes {version}",
                    hint="let the recipes under boxes/ agree",
                )
        boxes.update(recipe.boxes)
        runtimes.update(recipe.runtimes)
        cnis.update(recipe.cnis)
    by_number = sorted(known, key=lambda version: [int(part) for part in version.split(".")])
    return Catalog(
        boxes=tuple(sorted(boxes)),
        kubernetes=MappingProxyType({version: known[version] for version in by_number}),
        runtimes=tuple(sorted(runtimes)),
        cnis=tuple(sorted(cnis)),
        recipes=MappingProxyType(by_box),
        images=MappingProxyType(images),
    )


def _networks(data: dict[str, Any]) -> tuple[str, ...]:
    """The pod networks that a recipe names, and those for which its Debian packages are enough."""
    debian = data.get("debian")
    packages = debian.get("packages") if isinstance(debian, dict) else None
    there = set(packages) if isinstance(packages, list) else set()
    more = (name for name, network in networks().items() if not network.listed and there.issuperset(network.packages))
    return tuple(dict.fromkeys((*_names(data, "cnis"), *more)))


def _version(version: object, parts: object, needed: Sequence[str]) -> KubernetesVersion:
    # An unquoted 1.35 arrives here as a float and would silently lose a trailing zero.
    if not isinstance(version, str) or VERSION.fullmatch(version) is None:
        raise ValueError(f'kubernetes: {version!r} is not a full version; write for example "1.35.4"')
    wanted = {*KEYS, *needed}
    # Those of a network that the recipe does not name may be there: two recipes share a version.
    known = [key for network in networks().values() for key in network.version_keys]
    if not isinstance(parts, dict) or not wanted <= parts.keys() <= {*wanted, *known, PROGRAMS}:
        names = ", ".join((*KEYS, *needed))
        raise ValueError(f"kubernetes: {version}: name exactly these components: {names}")
    return KubernetesVersion(
        version=version,
        **{key: _text(parts, key) for key in KEYS},
        components=tuple((key, _text(parts, key)) for key in known if key in parts),
    )


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: a text is missing (quote version numbers)")
    return value


def _names(data: dict[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{key}: a list of names is missing")
    return tuple(value)
