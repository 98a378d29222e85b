from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.cluster.clients.api import UnreachableError
from lab.errors import LabError
from lab.snapshots.objects import Object, collect, content_digest, difference, read, write


def item(name: str, **content: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "7", "managedFields": []}
    return {"metadata": metadata, **content}


class Api:
    """An API server with a few resources; pages of two items."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {
            "/api/v1/configmaps": [item(f"c{i}", data={"a": "b"}) for i in range(5)],
            "/api/v1/secrets": [item("s", data={"password": "Z2VoZWlt"})],
            "/apis/apps/v1/deployments": [item("web", spec={"replicas": 3}, status={"readyReplicas": 1})],
        }
        self.asked: list[str] = []

    def get(self, path: str, *, seconds: float = 15.0) -> Any:
        self.asked.append(path)
        if path == "/apis":
            versions = ("apps/v1", "metrics.k8s.io/v1beta1")
            return {"groups": [{"preferredVersion": {"groupVersion": v}} for v in versions]}
        if path == "/api/v1":
            return {
                "resources": [
                    self.resource("ConfigMap", "configmaps"),
                    self.resource("Secret", "secrets"),
                    self.resource("Event", "events"),
                    self.resource("Node", "nodes", namespaced=False),
                    self.resource("Binding", "bindings", verbs=["create"]),
                ]
            }
        if path == "/apis/apps/v1":
            return {"resources": [self.resource("Deployment", "deployments")]}
        if path.startswith("/apis/metrics"):
            raise UnreachableError("503", status=503)
        items, _, query = path.partition("?")
        start = int(query.partition("&continue=")[2] or 0)
        more = str(start + 2) if len(self.lists[items]) > start + 2 else ""
        return {"items": self.lists[items][start : start + 2], "metadata": {"continue": more}}

    @staticmethod
    def resource(kind: str, name: str, *, namespaced: bool = True, verbs: Any = ("list",)) -> dict[str, Any]:
        return {"kind": kind, "name": name, "namespaced": namespaced, "verbs": list(verbs)}


def test_namespaced_objects_are_listed_page_by_page_and_restless_ones_are_not() -> None:
    api = Api()
    found = collect(api)
    assert {(each.kind, each.name) for each in found} == {
        *(("ConfigMap", f"c{i}") for i in range(5)),
        ("Secret", "s"),
        ("Deployment", "web"),
    }
    assert not [path for path in api.asked if path.startswith(("/api/v1/events", "/api/v1/nodes", "/api/v1/bindings"))]


def test_an_api_server_that_is_silent_is_no_empty_cluster() -> None:
    class Silent(Api):
        def get(self, path: str, *, seconds: float = 15.0) -> Any:
            raise UnreachableError("no answer")

    with pytest.raises(UnreachableError):
        collect(Silent())


def test_only_what_somebody_made_of_an_object_counts() -> None:
    one = item("web", spec={"replicas": 3}, status={"readyReplicas": 1})
    same = item("web", spec={"replicas": 3}, status={"readyReplicas": 3})
    same["metadata"] |= {"resourceVersion": "8", "generation": 2, "managedFields": [{}]}
    assert content_digest(one) == content_digest(same)
    assert content_digest(one) != content_digest(item("web", spec={"replicas": 2}))
    anew = item("web", spec={"replicas": 3})
    anew["metadata"]["uid"] = "another"
    assert content_digest(one) != content_digest(anew)


def test_the_difference() -> None:
    a, b, c = (Object("default", "ConfigMap", name) for name in "abc")
    found = difference({a: "1", b: "1"}, {b: "2", c: "1"})
    assert (found.added, found.removed, found.changed) == ((c,), (a,), (b,))
    assert difference({a: "1"}, {a: "1"}).none


def test_lists_are_kept_without_values(tmp_path: Path) -> None:
    file = tmp_path / "objects.json"
    assert read(file) is None
    found = collect(Api())
    write(file, found)
    assert read(file) == found
    assert "Z2VoZWlt" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    for text in ("{", "[1]", '[["a"]]'):
        file.write_text(text)
        with pytest.raises(LabError, match="damaged"):
            read(file)


def test_a_list_that_is_null_is_empty_and_an_answer_that_is_none_is_said() -> None:
    class Odd(Api):
        def __init__(self, answer: Any) -> None:
            super().__init__()
            self.answer = answer

        def get(self, path: str, *, seconds: float = 15.0) -> Any:
            return self.answer if path.startswith("/api/v1/secrets") else super().get(path, seconds=seconds)

    assert {each.kind for each in collect(Odd({"items": None, "metadata": {}}))} == {"ConfigMap", "Deployment"}
    for answer in ({}, [], {"items": [{"kind": "Secret"}]}):
        with pytest.raises(LabError, match="the API server returned an unexpected response") as caught:
            collect(Odd(answer))
        assert "apiservices" in caught.value.hint
