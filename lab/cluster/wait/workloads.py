"""Whether an add-on's objects do their work, by what the API server says of them.

Sources: kubernetes.io, "Deployments" (complete), "Perform a Rolling Update on a DaemonSet" (status), the conditions of
APIService and CustomResourceDefinition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.clients.resources import condition

# Kinds that do their work by pods, and those that do it once such pods run or the API server serves them.
RUNNING = ("Deployment", "DaemonSet")
SERVED = ("APIService", "CustomResourceDefinition")

# Objects of a manifest, each with what the API server has in its place.
Seen = Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]


def missing(api: Api, objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is still missing until all of these objects do their work, one line each.

    Raises:
        UnreachableError: the API server does not answer.
    """
    return missing_of(see(api, objects, (*RUNNING, *SERVED)))


def see(api: Api, objects: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> Seen:
    """Read those of the objects that are of these kinds; errors as `missing`."""
    return [(wanted, find(api, wanted)) for wanted in objects if wanted["kind"] in kinds]


def missing_of(seen: Seen) -> list[str]:
    """As `missing`, of objects that were read."""
    lines = []
    for wanted, found in seen:
        why = "is not there" if found is None else lacks(found)
        if why:
            lines.append(f"{wanted['kind']} {wanted['metadata']['name']} {why}")
    return lines


def find(api: Api, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """An object as the API server has it; None where it does not exist, or its kind is unknown.

    Raises:
        UnreachableError: the API server does not answer.
    """
    try:
        return api.read(wanted)
    except UnreachableError as error:
        if error.status == 404:
            return None
        raise


def lacks(found: Mapping[str, Any]) -> str:
    """Why an object does not do its work yet, as the end of a sentence; empty where it does."""
    kind, spec, status = found["kind"], found.get("spec", {}), found.get("status", {})
    if kind in RUNNING and status.get("observedGeneration", 0) < found["metadata"]["generation"]:
        return "has not been looked at yet"
    if kind == "Deployment":
        wanted, ready = spec.get("replicas", 1), status.get("availableReplicas", 0)
        new = status.get("updatedReplicas", 0)
        return "" if min(ready, new) >= wanted else f"has {min(ready, new)} of {wanted} pods available"
    if kind == "DaemonSet":
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
        new = status.get("updatedNumberScheduled", 0)
        if not wanted:
            return "has no node yet"
        return "" if min(ready, new) >= wanted else f"has pods available on {min(ready, new)} of {wanted} nodes"
    name = "Available" if kind == "APIService" else "Established"
    return "" if condition(found, name).get("status") == "True" else f"is not {name} yet{_why(found, name)}"


def _why(found: Mapping[str, Any], name: str) -> str:
    said = str(condition(found, name).get("message") or "")[:160]
    return f": {said}" if said else ""
