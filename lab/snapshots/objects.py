"""The Kubernetes objects of a lab with the digests of their content, which `klab diff` compares.

Namespaced objects only, without what changes by itself all the time (events, leases) and without
their status. Digests are kept, not objects: no Secret's value leaves the cluster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lab.cluster.clients.api import UnreachableError
from lab.errors import LabError, Remedy
from lab.files import write_atomic
from lab.waiting import map_parallel

WORKERS = 8
PAGE = 500
RESTLESS = {"Event", "Lease", "Endpoints", "PodMetrics"}
# What the cluster adds to an object, and changes although no person has changed the object.
_KEPT_BY_CLUSTER = ("managedFields", "resourceVersion", "generation")


class Asked(Protocol):
    """A client that answers a GET with JSON: `lab.cluster.clients.api.Api`."""

    def get(self, path: str, *, seconds: float = ...) -> Any: ...


@dataclass(frozen=True, slots=True, order=True)
class Object:
    """A namespaced object, told by these three."""

    namespace: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two moments: objects that only the second has, only the first, or both, but not alike."""

    added: tuple[Object, ...]
    removed: tuple[Object, ...]
    changed: tuple[Object, ...]

    @property
    def none(self) -> bool:
        return not (self.added or self.removed or self.changed)


def difference(first: Mapping[Object, str], second: Mapping[Object, str]) -> Difference:
    """Compare the objects of two moments."""
    return Difference(
        added=tuple(sorted(set(second) - set(first))),
        removed=tuple(sorted(set(first) - set(second))),
        changed=tuple(sorted(each for each in set(first) & set(second) if first[each] != second[each])),
    )


def collect(api: Asked) -> dict[Object, str]:
    """Every namespaced object there is now, with the digest of its content.

    Raises:
        UnreachableError: the API server does not answer.
        LabError: the API server returned an unexpected response, as aggregated APIs may.
    """
    try:
        roots = ["/api/v1", *_groups(api)]
        found = map_parallel(lambda root: _kinds(api, root), roots, most=WORKERS, give_up=True)
        kinds = [kind for some in found.values() for kind in some]
        lists = map_parallel(lambda kind: dict(_objects(api, *kind)), kinds, most=WORKERS, give_up=True)
        return {each: digest for some in lists.values() for each, digest in some.items()}
    except (LookupError, TypeError, AttributeError) as error:
        raise LabError(
            "the API server returned an unexpected response",
            details=[f"{type(error).__name__}: {error}"],
            hint=(Remedy("kubectl", options=("--", "get", "apiservices")), " shows which service serves which API"),
        ) from error


def _groups(api: Asked) -> list[str]:
    groups = api.get("/apis")["groups"]
    return [f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups]


def _kinds(api: Asked, root: str) -> list[tuple[str, str]]:
    """Kind and path of the list of each namespaced resource; none where an aggregated API fails."""
    try:
        resources = api.get(root)["resources"]
    except UnreachableError as error:
        if root == "/api/v1" or error.status == 0:
            raise
        return []
    return [
        (resource["kind"], f"{root}/{resource['name']}")
        for resource in resources
        if resource["namespaced"] and "list" in resource["verbs"] and resource["kind"] not in RESTLESS
    ]


def _objects(api: Asked, kind: str, path: str) -> Iterator[tuple[Object, str]]:
    more = ""
    while True:
        page = api.get(f"{path}?limit={PAGE}{more}", seconds=60.0)
        for item in page["items"] or ():  # Go writes null for an empty list
            metadata = item["metadata"]
            yield Object(metadata.get("namespace", ""), kind, metadata["name"]), content_digest(item)
        following = page.get("metadata", {}).get("continue")
        if not following:
            return
        if more == f"&continue={following}":
            raise LookupError(f"{path} has no end")
        more = f"&continue={following}"


def content_digest(item: Mapping[str, Any]) -> str:
    """The digest of an object's content: what people and controllers write, not what the API server adds."""
    metadata = {k: v for k, v in item["metadata"].items() if k not in _KEPT_BY_CLUSTER}
    content = {k: v for k, v in item.items() if k not in {"status", "metadata"}} | {"metadata": metadata}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write(file: Path, objects: Mapping[Object, str]) -> None:
    rows = [[each.namespace, each.kind, each.name, objects[each]] for each in sorted(objects)]
    write_atomic(file, json.dumps(rows) + "\n", mode=0o600)


def read(file: Path) -> dict[Object, str] | None:
    """The objects of a snapshot; None where they were not seen when it was taken.

    Raises:
        LabError: the file is damaged.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return {Object(str(namespace), str(kind), str(name)): str(digest) for namespace, kind, name, digest in rows}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise LabError(
            "the list of a snapshot's objects is damaged",
            details=[f"{file}: {error}"],
            hint=("only ", Remedy("diff"), " needs it; ", Remedy("restore"), " works without it"),
        ) from error
