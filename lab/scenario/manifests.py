"""Kubernetes manifests as kubectl apply -f reads them: text -> objects that JSON can hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lab.errors import ScenarioError
from lab.scenario.yaml_source import Budget, read_documents
from lab.text import visible

_OBJECT = "each needs apiVersion, kind and metadata.name"
_GENERATED = (
    "give it metadata.name; kubectl apply refuses a generateName, too: applied again, it would be another object"
)
# What a cluster of kubeadm's has before anything is applied.
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
# Kubernetes' own that are in a namespace. Of others, and of those that are in none, a manifest may well name one.
_NAMESPACED = frozenset(
    (
        *("ConfigMap", "CronJob", "DaemonSet", "Deployment", "EndpointSlice", "Endpoints", "HorizontalPodAutoscaler"),
        *("Ingress", "Job", "LimitRange", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget"),
        *("PodTemplate", "ReplicaSet", "ReplicationController", "ResourceQuota", "Role", "RoleBinding", "Secret"),
        *("Service", "ServiceAccount", "StatefulSet"),
    )
)


def read_manifests(text: str, source: str, budget: Budget) -> list[dict[str, Any]]:
    """The objects of a file's YAML documents, in order; those of a List one by one.

    Args:
        text: the file's content, YAML or JSON.
        source: what to call the file in messages.
        budget: how much may be read; what was read is taken from it.

    Raises:
        ScenarioError: it is not YAML, is too large, or has a document that is not a Kubernetes object.
    """
    found: list[dict[str, Any]] = []
    for number, tree in enumerate(read_documents(text.removeprefix("\ufeff"), budget), start=1):
        if tree.problems:
            raise ScenarioError(
                f"the add-on {source} cannot be read",
                details=[f"line {line}: {visible(what)}" for line, _at, what in sorted(tree.problems, key=str)[:20]],
                hint="klab reads it as kubectl apply -f does, except that no key may stand twice",
            )
        if tree.data is None:
            continue
        for each in _objects(tree.data):
            if _is_generated(each):
                raise ScenarioError(
                    f"document {number} of the add-on {source} has a generateName and no name", hint=_GENERATED
                )
            if not _is_object(each):
                raise ScenarioError(
                    f"document {number} of the add-on {source} is not a Kubernetes object",
                    hint=_OBJECT,
                )
            found.append(each)
    return found


def refuse_missing_namespaces(objects: Sequence[Mapping[str, Any]], others: Iterable[str]) -> None:
    """Make sure that add-ons make the namespaces into which they put objects, before or after these.

    Args:
        objects: those of all add-ons.
        others: the namespaces that the lab's pod network makes.

    Raises:
        ScenarioError: they do not; the API server would refuse these objects, whatever is waited for.
    """
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "Namespace"}
    there = {*_NAMESPACES, *others, *made}
    missing: dict[str, list[str]] = {}
    for each in objects:
        namespace = each["metadata"].get("namespace")
        if each["kind"] in _NAMESPACED and isinstance(namespace, str) and namespace and namespace not in there:
            missing.setdefault(namespace, []).append(f"{each['kind']} {each['metadata']['name']}")
    if not missing:
        return
    raise ScenarioError(
        f"the add-ons make no namespace {', '.join(visible(name) for name in missing)}",
        details=[visible(f"{', '.join(names[:5])}: in the namespace {name}") for name, names in missing.items()][:20],
        hint="add the Namespace to one of them, or correct metadata.namespace",
    )


def read_loosely(text: str, source: str, budget: Budget) -> list[dict[str, Any]]:
    """As `read_manifests`, whatever the mappings are in it: what has no name yet, or is another tool's file.

    Raises:
        ScenarioError: it is not YAML, or is too large.
    """
    found: list[dict[str, Any]] = []
    for tree in read_documents(text.removeprefix("\ufeff"), budget):
        if tree.problems:
            raise ScenarioError(
                f"the manifest {source} cannot be read",
                details=[f"line {line}: {visible(what)}" for line, _at, what in sorted(tree.problems, key=str)[:20]],
                hint="klab reads it as kubectl apply -f does, except that no key may stand twice; a template of Helm's "
                "is read once it is rendered: helm template",
            )
        found += [each for each in _objects(tree.data) if isinstance(each, dict)]
    return found


def _objects(document: Any) -> Iterator[Any]:
    """The object itself, or those of a list: items without a kind have the list's (a PodList holds Pods)."""
    if not isinstance(document, dict) or not isinstance(document.get("items"), list):
        yield document
        return
    kind, version = document.get("kind"), document.get("apiVersion")
    inherited = {"apiVersion": version, "kind": str(kind).removesuffix("List")} if kind != "List" else {}
    for item in document["items"]:
        yield from _objects(inherited | item if isinstance(item, dict) and "kind" not in item else item)


def _is_generated(document: object) -> bool:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return isinstance(metadata, dict) and bool(metadata.get("generateName")) and not metadata.get("name")


def _is_object(document: object) -> bool:
    if not isinstance(document, dict):
        return False
    metadata = document.get("metadata")
    named = isinstance(metadata, dict) and isinstance(metadata.get("name"), str) and metadata["name"]
    return bool(named) and all(isinstance(document.get(part), str) for part in ("apiVersion", "kind"))
