"""The API server's answers as klab takes them, over HTTPS to a server of the test's."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster_server import refusing
from support.lab_servers import LabServers

from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.secrets import load_or_make
from lab.errors import ClusterError
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import LabFolder

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
RESOURCES = [
    {"kind": "ConfigMap", "name": "configmaps", "namespaced": True},
    {"kind": "Namespace", "name": "namespaces", "namespaced": False},
    {"kind": "Namespace", "name": "namespaces/finalize", "namespaced": False},
]


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    return decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=0)), catalog)


@pytest.fixture
def folder(tmp_path: Path) -> LabFolder:
    found = LabFolder(tmp_path / "demo")
    load_or_make(found)
    return found


@pytest.fixture
def servers(folder: LabFolder, plan: Plan) -> Iterator[LabServers]:
    made = LabServers(folder, plan)
    made.answer("/api/v1", 200, {"resources": RESOURCES})
    yield made
    made.close()


@pytest.fixture
def api(folder: LabFolder, plan: Plan, servers: LabServers) -> Api:
    return Api(folder, plan, servers.reach)


def test_a_body_is_read_as_text_and_as_json(api: Api, servers: LabServers, plan: Plan) -> None:
    servers.answer("/api/v1/nodes", 200, '{"items": []}')
    assert api.text("/api/v1/nodes") == '{"items": []}'
    assert api.get("/api/v1/nodes") == {"items": []}
    assert servers.knocked == [plan.api_endpoint] * 2


def test_the_clock_is_the_servers_own(api: Api, servers: LabServers) -> None:
    servers.answer("/version", 200, {})
    noon = datetime.datetime(2027, 5, 4, 12, tzinfo=datetime.UTC)
    servers.set_clock(noon.timestamp())
    assert api.clock() == noon


def test_an_answer_that_is_not_a_success_says_why(api: Api, servers: LabServers) -> None:
    servers.answer("/api/v1/nodes/w9", 404, {"message": 'nodes "w9" not found'})
    with pytest.raises(UnreachableError, match='GET /api/v1/nodes/w9: 404 nodes "w9" not found') as caught:
        api.text("/api/v1/nodes/w9")
    assert caught.value.status == 404


@pytest.mark.parametrize("body", ["never mind", "[" * 100_000])
def test_an_answer_that_is_not_json_is_told_from_none(api: Api, servers: LabServers, body: str) -> None:
    servers.answer("/api/v1/nodes", 200, body)
    with pytest.raises(UnreachableError, match="the answer is malformed") as caught:
        api.get("/api/v1/nodes")
    assert caught.value.status == 200


def test_an_object_is_applied_where_its_kind_is_served(api: Api, servers: LabServers, plan: Plan) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    server = servers.doors[plan.api_endpoint]
    for _ in range(2):
        api.apply(CONFIG_MAP)
    api.apply(namespace)
    assert [(method, path, json.loads(body)) for method, path, body in server.changed] == [
        ("PATCH", "/api/v1/namespaces/default/configmaps/a", CONFIG_MAP),
        ("PATCH", "/api/v1/namespaces/default/configmaps/a", CONFIG_MAP),
        ("PATCH", "/api/v1/namespaces/n", namespace),
    ]
    assert [path for path in server.asked if path == "/api/v1"] == ["/api/v1"], "the kinds are asked for once"
    with pytest.raises(ClusterError, match="does not know the kind Pod in v1"):
        api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})
    with pytest.raises(ClusterError, match="does not know the kind Deployment in extensions/v1beta1") as caught:
        api.apply({"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "d"}})
    assert not isinstance(caught.value, UnreachableError)
    assert "Kubernetes has removed" in caught.value.hint
    servers.answer("/apis/rbac.authorization.k8s.io/v1", 200, {"resources": []})
    with pytest.raises(ClusterError, match="does not know the kind Rol in") as caught:
        api.apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Rol", "metadata": {"name": "r"}})
    assert not isinstance(caught.value, UnreachableError)


def test_a_kind_that_is_missing_is_asked_for_again(api: Api, servers: LabServers, plan: Plan) -> None:
    def kinds(*names: str) -> dict[str, object]:
        return {"resources": [{"kind": n, "name": f"{n.lower()}s", "namespaced": True} for n in names]}

    red, blue = ({"apiVersion": "lesson.example/v1", "kind": k, "metadata": {"name": "one"}} for k in ("Red", "Blue"))
    with pytest.raises(UnreachableError) as caught:
        api.apply(red)
    assert caught.value.status == 404
    servers.answer("/apis/lesson.example/v1", 200, kinds("Red"))
    api.apply(red)
    for _ in range(2):
        with pytest.raises(UnreachableError, match=r"does not know the kind Blue in lesson\.example/v1 yet") as caught:
            api.apply(blue)
        assert caught.value.status == 404
    servers.answer("/apis/lesson.example/v1", 200, kinds("Red", "Blue"))
    api.apply(blue)
    paths = [path for _, path, _ in servers.doors[plan.api_endpoint].changed]
    assert paths[-1] == "/apis/lesson.example/v1/namespaces/default/blues/one"


def test_an_object_is_deleted(api: Api, servers: LabServers, plan: Plan) -> None:
    api.delete("/api/v1/nodes/w9")
    assert servers.doors[plan.api_endpoint].changed == [("DELETE", "/api/v1/nodes/w9", "")]


def test_a_server_that_is_not_there_is_named_by_the_labs_address(folder: LabFolder, plan: Plan) -> None:
    with pytest.raises(UnreachableError, match="the API server at https://192") as caught:
        Api(folder, plan, refusing).text("/readyz")
    assert "connection refused" in caught.value.message
    assert caught.value.status == 0
