"""The lab's API server, asked from the host: Kubernetes' own protocol over `lab.cluster.clients.https`.

Paths and plain JSON, because klab reads a handful of fields and applies manifests of any kind.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from lab.cluster.admin_kubeconfig import server
from lab.cluster.clients.https import JSON, Answer, Https, UnreachableError, refuse_failure
from lab.cluster.clients.reach import Reach, direct
from lab.cluster.secrets import admin_files
from lab.errors import ClusterError
from lab.plan.model import Plan
from lab.store import LabFolder
from lab.text import shortened, visible

__all__ = ["Api", "UnreachableError"]

FIELD_MANAGER = "klab"
APPLY = "application/apply-patch+yaml"
CONNECT_SECONDS = 5.0
# Kubernetes' own API groups, beside those without a dot (kubernetes, pkg/controlplane/instance.go).
_OWN_GROUPS = frozenset(
    f"{name}.k8s.io"
    for name in (
        *("admissionregistration", "apiextensions", "apiregistration", "authentication", "authorization"),
        *("certificates", "coordination", "discovery", "events", "flowcontrol.apiserver", "internal.apiserver"),
        *("networking", "node", "rbac.authorization", "resource", "scheduling", "storage", "storagemigration"),
    )
)


class Api:
    """One lab's API server, at the lab's endpoint.

    Args:
        folder: the lab's folder, which has the client certificate.
        plan: the lab's plan.
        reach: where a node's port is reached from here.
    """

    def __init__(self, folder: LabFolder, plan: Plan, reach: Reach = direct) -> None:
        self._https = Https(admin_files(folder), reach, connect_seconds=CONNECT_SECONDS)
        self._endpoint = plan.api_endpoint
        self._server = server(plan)
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    def get(self, path: str, *, seconds: float = 15.0) -> Any:
        """GET a path and return its JSON.

        Raises:
            UnreachableError: no answer within `seconds`, or one that is not a success or not JSON.
        """
        text = self.text(path, seconds=seconds)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, text) from error

    def text(self, path: str, *, seconds: float = 15.0) -> str:
        """GET a path and return its body as text; errors as in `get`."""
        return self._call("GET", path, seconds=seconds).text

    def clock(self, *, seconds: float = 15.0) -> datetime.datetime:
        """The API server's own time, from its answer's Date header (RFC 9110); errors as in `get`."""
        answer = self._call("GET", "/version", seconds=seconds)
        if answer.clock is None:
            raise _malformed("/version", "its Date header")
        return answer.clock

    def delete(self, path: str, *, seconds: float = 60.0) -> None:
        """DELETE a path; errors as in `get`."""
        self._call("DELETE", path, seconds=seconds)

    def apply(self, manifest: dict[str, Any], *, seconds: float = 60.0) -> None:
        """Server-side apply one object (kubernetes.io, "Server-Side Apply"); doing it again changes nothing.

        Raises:
            UnreachableError: as in `get`; with status 404 where the kind is not there yet.
            ClusterError: the kind is Kubernetes' own, and this version does not have it.
        """
        path = f"{self._path(manifest)}?fieldManager={FIELD_MANAGER}&force=true"
        self._call("PATCH", path, body=json.dumps(manifest), content=APPLY, seconds=seconds)

    def read(self, manifest: Mapping[str, Any], *, seconds: float = 15.0) -> dict[str, Any]:
        """The object of a manifest's kind and name as the API server has it; errors as in `apply` and `get`."""
        path = self._path(manifest)
        found = self.get(path, seconds=seconds)
        if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
            raise _malformed(path, str(found))
        return found

    def remove(self, manifest: Mapping[str, Any], *, seconds: float = 60.0) -> None:
        """Delete the object of a manifest's kind and name; errors as in `apply`, 404 where it is not there."""
        self.delete(self._path(manifest), seconds=seconds)

    def _path(self, manifest: Mapping[str, Any]) -> str:
        """Where an object is; errors as in `apply`."""
        metadata = manifest["metadata"]
        plural, namespaced = self._kind(manifest["apiVersion"], manifest["kind"])
        path = _root(manifest["apiVersion"])
        if namespaced:
            path += f"/namespaces/{metadata.get('namespace', 'default')}"
        return f"{path}/{plural}/{metadata['name']}"

    def _kind(self, version: str, kind: str) -> tuple[str, bool]:
        """The plural name of a kind, and whether its objects have a namespace.

        Kinds are remembered for each version, and asked for again where one is missing: a CustomResourceDefinition
        may have brought it since.
        """
        if kind not in self._kinds.get(version, {}):
            try:
                found = self.get(_root(version), seconds=30)
            except UnreachableError as error:
                if error.status == 404 and _is_built_in(version):
                    raise _unknown(version, kind) from error
                raise
            try:
                resources = [(r["kind"], r["name"], r["namespaced"]) for r in found["resources"]]
                self._kinds[version] = {kind: (name, spaced) for kind, name, spaced in resources if "/" not in name}
            except (LookupError, TypeError) as error:
                raise _malformed(_root(version), str(found)) from error
        if kind not in self._kinds[version]:
            if _is_built_in(version):
                raise _unknown(version, kind)
            raise UnreachableError(f"the cluster does not know the kind {kind} in {version} yet", status=404)
        return self._kinds[version][kind]

    def _call(self, method: str, path: str, *, seconds: float, body: str | None = None, content: str = JSON) -> Answer:
        """One request and its answer, which is a success; errors as in `get`."""
        try:
            answer = self._https.request(method, *self._endpoint, path, body=body, content=content, seconds=seconds)
        except UnreachableError as error:
            why = f"the API server at {self._server} does not answer: {error.message}"
            raise UnreachableError(why, status=error.status) from error
        refuse_failure(answer, f"{method} {path}: ")
        return answer


def _is_built_in(version: str) -> bool:
    """Whether an API is one that the API server itself serves, and no CustomResourceDefinition can add to."""
    group = version.rpartition("/")[0]
    return "." not in group or group in _OWN_GROUPS


def _unknown(version: str, kind: str) -> ClusterError:
    return ClusterError(
        f"the cluster does not know the kind {kind} in {version}",
        hint="correct the kind or the version in the manifest; Kubernetes has removed the older versions of some",
    )


def _malformed(path: str, text: str) -> UnreachableError:
    return UnreachableError(f"GET {path}: the answer is malformed: {shortened(visible(text), 100)}", status=200)


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
