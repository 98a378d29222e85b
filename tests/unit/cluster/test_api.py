"""The API server's answers as klab takes them; the official client's connection is the test's."""

from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import pytest
import urllib3

from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.secrets import load_or_make
from lab.plan.decide import decide
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import LabFolder


class Answers:
    """In place of the client's one call: the same answer each time; remembers what was asked."""

    def __init__(self, status: int, body: str) -> None:
        self.status, self.body = status, body
        self.asked: list[tuple[str, str]] = []

    def __call__(self, method: str, url: str, **_: object) -> urllib3.HTTPResponse:
        self.asked.append((method, url))
        headers = {"Date": "Tue, 04 May 2027 12:00:00 GMT"}
        return urllib3.HTTPResponse(io.BytesIO(self.body.encode()), headers, self.status, preload_content=False)


@pytest.fixture
def api(tmp_path: Path, catalog: Catalog) -> Any:
    folder = LabFolder(tmp_path / "demo")
    load_or_make(folder)
    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=0)), catalog)
    return Api(folder, plan)


def answering(api: Any, status: int, body: str) -> Answers:
    api._client.call_api = Answers(status, body)
    return api._client.call_api


def test_a_body_is_read_as_text_and_as_json(api: Any) -> None:
    answers = answering(api, 200, '{"items": []}')
    assert api.text("/api/v1/nodes") == '{"items": []}'
    assert api.get("/api/v1/nodes") == {"items": []}
    assert answers.asked == [("GET", "https://192.168.56.11:6443/api/v1/nodes")] * 2


def test_the_clock_is_the_servers_own(api: Any) -> None:
    answering(api, 200, "{}")
    assert api.clock() == datetime.datetime(2027, 5, 4, 12, tzinfo=datetime.UTC)


def test_an_answer_that_is_no_success_says_why(api: Any) -> None:
    answering(api, 404, '{"message": "nodes \\"w9\\" not found"}')
    with pytest.raises(UnreachableError, match='DELETE /api/v1/nodes/w9: 404 nodes "w9" not found') as caught:
        api.delete("/api/v1/nodes/w9")
    assert caught.value.status == 404
