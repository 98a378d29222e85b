"""When an add-on's objects do their work, by the API server's word."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster_server import WORKS

from lab.cluster.clients.api import UnreachableError
from lab.cluster.wait.workloads import find, lacks, missing


def object_of(kind: str, status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "it", "generation": 1}, "spec": spec, "status": status}


@pytest.mark.parametrize("kind", WORKS)
def test_what_works_lacks_nothing(kind: str) -> None:
    assert lacks(object_of(kind, WORKS[kind])) == ""


@pytest.mark.parametrize(
    ("kind", "status", "why"),
    [
        ("Deployment", {}, "has not been looked at yet"),
        ("Deployment", {"observedGeneration": 1}, "has 0 of 1 pods available"),
        ("Deployment", {"observedGeneration": 1, "availableReplicas": 1}, "has 0 of 1 pods available"),
        ("DaemonSet", {"observedGeneration": 0}, "has not been looked at yet"),
        ("DaemonSet", {"observedGeneration": 1}, "has no node yet"),
        (
            "DaemonSet",
            {
                "observedGeneration": 1,
                "desiredNumberScheduled": 3,
                "numberAvailable": 2,
                "updatedNumberScheduled": 3,
            },
            "has pods available on 2 of 3 nodes",
        ),
        ("APIService", {}, "is not Available yet"),
        (
            "APIService",
            {"conditions": [{"type": "Available", "status": "False", "message": "no endpoints"}]},
            "is not Available yet: no endpoints",
        ),
        ("CustomResourceDefinition", {"conditions": []}, "is not Established yet"),
    ],
)
def test_what_does_not_work_tells_why(kind: str, status: dict[str, Any], why: str) -> None:
    assert lacks(object_of(kind, status)) == why


def test_a_deployment_of_none_works() -> None:
    assert lacks(object_of("Deployment", {"observedGeneration": 1}, replicas=0)) == ""


class Answers:
    """An API server that knows these objects; any other is answered with `status`."""

    def __init__(self, *objects: dict[str, Any], status: int = 404) -> None:
        self._objects = {each["kind"]: each for each in objects}
        self._status = status

    def read(self, wanted: Any) -> dict[str, Any]:
        if wanted["kind"] in self._objects:
            return self._objects[wanted["kind"]]
        raise UnreachableError("no", status=self._status)


def test_objects_without_work_are_not_asked_for_and_missing_ones_are_told() -> None:
    wanted = [object_of(kind, {}) for kind in ("Namespace", "Deployment", "DaemonSet")]
    api: Any = Answers(object_of("DaemonSet", WORKS["DaemonSet"]))
    assert missing(api, wanted) == ["Deployment it is not there"]


def test_a_server_that_does_not_answer_is_no_missing_object() -> None:
    api: Any = Answers(status=503)
    with pytest.raises(UnreachableError):
        find(api, object_of("Deployment", {}))
