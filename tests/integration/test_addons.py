"""Add-ons before a real API server: what it takes, what it will never take, and what may pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.control_plane import ControlPlane

from lab.cluster.acts.apply import Applying
from lab.cluster.clients.api import Api
from lab.errors import ClusterError
from lab.scenario.manifests import read_manifests
from lab.scenario.yaml_source import manifest_budget
from lab.waiting import Deadline, poll

LONG = 120.0
TYPO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: typo}
spec:
  replica: 3
  selector: {matchLabels: {app: typo}}
  template:
    metadata: {labels: {app: typo}}
    spec: {containers: [{name: web, image: nginx}]}
"""
KIND = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: NAMEs.lesson.example}
spec:
  group: lesson.example
  names: {kind: KIND, plural: NAMEs}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: lesson.example/v1
kind: KIND
metadata: {name: one, namespace: late}
---
"""
NAMESPACE = "{apiVersion: v1, kind: Namespace, metadata: {name: late}}"
WEBHOOK = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: not-up}
webhooks:
- name: maps.lesson.example
  clientConfig: {url: "https://127.0.0.1:9/maps"}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: ["*"], resources: [configmaps]}]
  sideEffects: None
  admissionReviewVersions: [v1]
  failurePolicy: Fail
"""
CONFIG_MAP = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata: {opens: 12:30, since: 2024-01-01, sign: =}\n"
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        found.wait(lambda facts: facts.endpoint is not None and not facts.endpoint.error)
        yield found
    finally:
        found.close()


@pytest.fixture
def api(plane: ControlPlane) -> Api:
    return Api(plane.folder, plane.plan, plane.reach)


def objects(text: str) -> list[dict[str, Any]]:
    return read_manifests(text, "a.yaml", manifest_budget())


def settle(applying: Applying) -> bool:
    return bool(poll(applying.round, Deadline.after(LONG), every=0.5))


def test_a_typo_ends_at_once_with_the_servers_reason(api: Api) -> None:
    assert settle(Applying(api, "namespaces", objects("{apiVersion: v1, kind: Namespace, metadata: {name: default}}")))
    with pytest.raises(ClusterError, match="refuses Deployment typo") as caught:
        Applying(api, "add-ons", objects(TYPO)).round()
    assert ".spec.replica: field not declared in schema" in caught.value.details[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TYPO.replace("replica: 3", "replicas: -3"), "must be greater than or equal to 0"),
        (TYPO.replace("replica: 3", "replicas: three"), "expected numeric"),
        (CONFIG_MAP.replace("NAME", "Not_A_Name"), "Invalid value"),
    ],
)
def test_what_is_invalid_ends_at_once(text: str, words: str, api: Api) -> None:
    with pytest.raises(ClusterError, match="the API server refuses") as caught:
        Applying(api, "add-ons", objects(text)).round()
    assert words in caught.value.details[0]


def test_a_kind_that_this_kubernetes_does_not_have_ends_at_once(api: Api) -> None:
    for version, kind in (("extensions/v1beta1", "Ingress"), ("apps/v1", "Deploymnet"), ("batch/v1beta1", "CronJob")):
        with pytest.raises(ClusterError, match=f"does not know the kind {kind}"):
            Applying(api, "add-ons", objects(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n")).round()


def test_kinds_of_one_group_come_one_after_the_other_and_the_namespace_last(api: Api) -> None:
    text = "".join(KIND.replace("KIND", kind).replace("NAME", kind.lower()) for kind in ("Red", "Blue"))
    applying = Applying(api, "add-ons", objects(text + NAMESPACE))
    assert not applying.round()
    assert any("Red one" in line for line in applying.missing)
    assert settle(applying)
    for name in ("reds", "blues"):
        assert api.get(f"/apis/lesson.example/v1/namespaces/late/{name}/one")["metadata"]["name"] == "one"


def test_values_arrive_as_they_are_written(api: Api) -> None:
    assert settle(Applying(api, "add-ons", objects(CONFIG_MAP.replace("NAME", "hours"))))
    found = api.get("/api/v1/namespaces/default/configmaps/hours")["data"]
    assert found == {"opens": "12:30", "since": "2024-01-01", "sign": "="}


def test_a_webhook_that_is_not_up_is_waited_for(api: Api) -> None:
    assert settle(Applying(api, "add-ons", objects(WEBHOOK)))
    applying = Applying(api, "add-ons", objects(CONFIG_MAP.replace("NAME", "later")))
    poll(lambda: not applying.round() and "failed calling webhook" in str(applying.missing), Deadline.after(LONG))
    assert "maps.lesson.example" in applying.missing[0]
    api.delete("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/not-up")
    assert settle(applying)
