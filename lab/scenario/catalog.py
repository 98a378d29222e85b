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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lab import resources
from lab.errors import BoxError

VERSION = re.compile(r"\d+\.\d+\.\d+")
# Where kubeadm looks for its images (kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-init).
KUBERNETES_REGISTRY = "registry.k8s.io"


@dataclass(frozen=True, slots=True)
class KubernetesVersion:
    """One Kubernetes version and the versions of everything that goes with it, without a leading "v".

    `etcd_image` and `pause` are image tags (kubeadm numbers its etcd builds: 3.6.6-0),
    the rest are the upstream projects' versions.
    """

    version: str
    etcd: str
    etcd_image: str
    coredns: str
    pause: str
    flannel: str
    flannel_cni: str

    @property
    def minor(self) -> tuple[int, int]:
        """Major and minor number, for comparisons: (1, 35)."""
        major, minor, _ = self.version.split(".")
        return int(major), int(minor)

    @property
    def images(self) -> Mapping[str, str]:
        """Full image references by component, as kubeadm and flannel's manifest name them."""
        return MappingProxyType(
            {
                **{
                    name: f"{KUBERNETES_REGISTRY}/{name}:v{self.version}"
                    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
                },
                "pause": f"{KUBERNETES_REGISTRY}/pause:{self.pause}",
                "etcd": f"{KUBERNETES_REGISTRY}/etcd:{self.etcd_image}",
                "coredns": f"{KUBERNETES_REGISTRY}/coredns/coredns:v{self.coredns}",
                "flannel": f"ghcr.io/flannel-io/flannel:v{self.flannel}",
            }
        )

    def image(self, component: str) -> str:
        """The full reference of one component's image, for example `image("flannel")`.

        Raises:
            KeyError: there is no image of that component.
        """
        return self.images[component]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything a scenario may name. Sequences are sorted: names by alphabet, versions oldest first."""

    boxes: tuple[str, ...]
    kubernetes: Mapping[str, KubernetesVersion]
    runtimes: tuple[str, ...]
    cnis: tuple[str, ...]


@functools.cache
def load_catalog(root: Path | None = None) -> Catalog:
    """Read every recipe that klab ships; once, since they do not change while klab runs.

    Args:
        root: the folder of recipes; by default the one klab was installed with.

    Raises:
        BoxError: a recipe is not readable or lacks something.
    """
    folder = root or resources.path("boxes")
    files = sorted(folder.glob("*/recipe.yaml"))
    recipes = []
    for file in files:
        try:
            recipes.append(parse_recipe(read_recipe(file)))
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise BoxError(f"the recipe {file.parent.name} cannot be read", details=[f"{file}: {error}"]) from error
    return merge(recipes)


def read_recipe(file: Path) -> Any:
    """What a recipe's file holds, through libyaml where PyYAML has it, which is eight times as quick.

    Raises:
        OSError: it cannot be read.
        yaml.YAMLError: it is not YAML.
        ValueError: it is not UTF-8.
    """
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    return yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506


def parse_recipe(data: Any) -> Catalog:
    """The catalog's part of one recipe.

    Args:
        data: the recipe as YAML gives it: keys name, runtimes, cnis, kubernetes.

    Raises:
        ValueError: it has another shape; the message names the key.
    """
    if not isinstance(data, dict):
        raise ValueError("a recipe is a mapping")
    versions = data.get("kubernetes")
    if not isinstance(versions, dict) or not versions:
        raise ValueError("kubernetes: a mapping of versions to component versions is missing")
    return Catalog(
        boxes=(_text(data, "name"),),
        kubernetes=MappingProxyType({str(v): _version(v, parts) for v, parts in versions.items()}),
        runtimes=_names(data, "runtimes"),
        cnis=_names(data, "cnis"),
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
    for recipe in recipes:
        for version, parts in recipe.kubernetes.items():
            if known.setdefault(version, parts) != parts:
                raise BoxError(f"two recipes pin different components for Kubernetes {version}")
        boxes.update(recipe.boxes)
        runtimes.update(recipe.runtimes)
        cnis.update(recipe.cnis)
    by_number = sorted(known, key=lambda version: [int(part) for part in version.split(".")])
    return Catalog(
        boxes=tuple(sorted(boxes)),
        kubernetes=MappingProxyType({version: known[version] for version in by_number}),
        runtimes=tuple(sorted(runtimes)),
        cnis=tuple(sorted(cnis)),
    )


def _version(version: object, parts: object) -> KubernetesVersion:
    # An unquoted 1.35 arrives here as a float and would silently lose a trailing zero.
    if not isinstance(version, str) or VERSION.fullmatch(version) is None:
        raise ValueError(f'kubernetes: {version!r} is not a full version; write for example "1.35.4"')
    wanted = [field.name for field in fields(KubernetesVersion) if field.name != "version"]
    if not isinstance(parts, dict) or sorted(parts) != sorted(wanted):
        raise ValueError(f"kubernetes: {version}: name exactly these components: {', '.join(wanted)}")
    return KubernetesVersion(version=version, **{name: _text(parts, name) for name in wanted})


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
