"""The lab's API server, asked from the host.

A thin use of the official client: paths and plain JSON, because klab reads a handful of
fields and applies manifests of any kind. The client is imported here only, and late: it
takes most of a second.
"""

from __future__ import annotations

import datetime
import json
from typing import Any

from lab.cluster.clients.https import clock
from lab.cluster.kubeconfig import server
from lab.cluster.secrets import admin_files
from lab.errors import ClusterError
from lab.plan.model import Plan
from lab.store import LabFolder
from lab.text import shortened, visible

FIELD_MANAGER = "klab"
CONNECT_SECONDS = 5.0


class UnreachableError(ClusterError):
    """The API server does not answer, or not with success. `status` is the HTTP status, 0 without one."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message, hint="klab status shows the lab's nodes")
        self.status = status


class Api:
    """One lab's API server."""

    def __init__(self, folder: LabFolder, plan: Plan) -> None:
        from kubernetes import client

        files = admin_files(folder)
        config = client.Configuration()
        config.host = server(plan)
        config.ssl_ca_cert = str(files.ca)
        config.cert_file = str(files.certificate)
        config.key_file = str(files.key)
        config.retries = False
        # A proxy of the host's has no way into the lab.
        config.proxy = None
        config.no_proxy = "*"
        self._client = client.ApiClient(config)
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    def get(self, path: str, *, seconds: float = 15.0) -> Any:
        """GET a path and return its JSON.

        Raises:
            UnreachableError: no answer within `seconds`, or one that is no success or no JSON.
        """
        text = self.text(path, seconds=seconds)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, text) from error

    def text(self, path: str, *, seconds: float = 15.0) -> str:
        """GET a path and return its body as text; errors as in `get`."""
        return self._call("GET", path, seconds=seconds)[0]

    def clock(self, *, seconds: float = 15.0) -> datetime.datetime:
        """The API server's own time, from its answer's Date header (RFC 9110); errors as in `get`."""
        _, headers = self._call("GET", "/version", seconds=seconds)
        found = clock(headers.get("date"))
        if found is None:
            raise _malformed("/version", f"Date: {headers.get('date')}")
        return found

    def delete(self, path: str, *, seconds: float = 60.0) -> None:
        """DELETE a path; errors as in `get`."""
        self._call("DELETE", path, seconds=seconds)

    def apply(self, manifest: dict[str, Any], *, seconds: float = 60.0) -> None:
        """Server-side apply one object (kubernetes.io, "Server-Side Apply"); doing it again changes nothing.

        Raises:
            UnreachableError: as in `get`.
            ClusterError: the API server knows no such kind.
        """
        metadata = manifest["metadata"]
        plural, namespaced = self._kind(manifest["apiVersion"], manifest["kind"])
        path = _root(manifest["apiVersion"])
        if namespaced:
            path += f"/namespaces/{metadata.get('namespace', 'default')}"
        path += f"/{plural}/{metadata['name']}?fieldManager={FIELD_MANAGER}&force=true"
        self._call("PATCH", path, body=json.dumps(manifest), content="application/apply-patch+yaml", seconds=seconds)

    def _kind(self, version: str, kind: str) -> tuple[str, bool]:
        if version not in self._kinds:
            found = self.get(_root(version), seconds=30)
            try:
                resources = [(r["kind"], r["name"], r["namespaced"]) for r in found["resources"]]
                self._kinds[version] = {kind: (name, spaced) for kind, name, spaced in resources if "/" not in name}
            except (LookupError, TypeError) as error:
                raise _malformed(_root(version), str(found)) from error
        if kind not in self._kinds[version]:
            raise ClusterError(
                f"the cluster knows no {kind} in {version}",
                hint="its CustomResourceDefinition has to come before it, or the version is another",
            )
        return self._kinds[version][kind]

    def _call(
        self, method: str, path: str, *, seconds: float, body: str | None = None, content: str = "application/json"
    ) -> tuple[str, dict[str, str]]:
        """One call: the answer's body as text, and its headers by their names in lower case."""
        import urllib3
        from kubernetes.client.exceptions import ApiException

        try:
            answer = self._client.call_api(
                method,
                self._client.configuration.host + path,
                header_params={"Accept": "application/json, */*", "Content-Type": content},
                body=body,
                _request_timeout=(min(CONNECT_SECONDS, seconds), seconds),
            )
            text = (answer.read() or b"").decode("utf-8", "replace")
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            where = self._client.configuration.host
            raise UnreachableError(f"the API server at {where} does not answer: {_cause(error)}") from error
        if answer.status >= 300:
            raise UnreachableError(f"{method} {path}: {answer.status} {_reason(text)}", status=answer.status)
        return text, {name.lower(): value for name, value in answer.headers.items()}


def _malformed(path: str, text: str) -> UnreachableError:
    return UnreachableError(f"GET {path}: the answer is malformed: {shortened(visible(text), 100)}", status=200)


def _cause(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps a refused connection three times."""
    inner = getattr(error, "reason", None)
    return _cause(inner) if isinstance(inner, BaseException) else str(inner or error).split("\n")[-1][:200]


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _reason(text: str) -> str:
    try:
        return str(json.loads(text).get("message", text))[:300]
    except (ValueError, AttributeError, RecursionError):
        return text[:300]
