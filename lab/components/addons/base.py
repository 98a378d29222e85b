"""What klab asks an add-on: objects of a cluster, with the images that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from lab.components.cluster import Cluster, Minor

# On each object of an add-on, with the add-on's name: what klab finds and removes it by.
LABEL = "klab.dev/addon"


class Addon:
    """One add-on. The answers here are those of one that fits every cluster; a subclass gives those that differ.

    summary: what it gives a lesson, in a few words of the scenario's reference.
    version: that of upstream's release, without a leading "v".
    since: the oldest minor version of Kubernetes that it runs on.
    repositories: its images' names without a tag, by component; boxes/addons/NAME.yaml tells how each is compiled.
    tag: a tag of them, for `version`.
    namespaces: those that it makes.
    pods: what the names of its pods begin with.
    storage_class: the StorageClass whose volumes it looks after.
    enforces_policies: with it, NetworkPolicy objects are enforced.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[str]
    since: ClassVar[Minor] = (1, 16)
    repositories: ClassVar[Mapping[str, str]] = MappingProxyType({})
    tag: ClassVar[str] = "v{}"
    namespaces: ClassVar[tuple[str, ...]] = ()
    pods: ClassVar[tuple[str, ...]] = ()
    storage_class: ClassVar[str] = ""
    enforces_policies: ClassVar[bool] = False

    @property
    def images(self) -> Mapping[str, str]:
        """Its images by component, full references."""
        return {name: f"{image}:{self.tag.format(self.version)}" for name, image in self.repositories.items()}

    def refusal(self, cluster: Cluster) -> str:
        """Why it cannot run in a cluster; empty where it can."""
        found = cluster.kubernetes.versions.minor
        if found >= self.since:
            return ""
        return (
            f"{self.name} {self.version} needs Kubernetes {_dotted(self.since)} or newer; the lab has {_dotted(found)}"
        )

    def objects(self, cluster: Cluster) -> Sequence[dict[str, Any]]:
        """Its objects, in an order in which they can be applied."""
        raise NotImplementedError

    def manifest(self, cluster: Cluster) -> Sequence[dict[str, Any]]:
        """Its objects with the add-on's label, in an order in which they can be applied."""
        return [_labelled(each, self.name) for each in self.objects(cluster)]


def _labelled(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), LABEL: name}}}


def _dotted(minor: Minor) -> str:
    return f"{minor[0]}.{minor[1]}"
