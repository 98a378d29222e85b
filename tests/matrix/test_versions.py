"""Each version of Kubernetes on each box that can hold it: a real lab of two nodes until Ready, and the nginx lesson.

KLAB_TEST_VERSIONS chooses, by spaces; all that klab knows otherwise. A line for docs/versions.md is printed for each.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.lessons import nginx_behind_a_node_port, services_by_name
from support.real_lab import Lab, prepare, say

from lab import resources
from lab.scenario.catalog import load_catalog

CATALOG = load_catalog()
VERSIONS = [CATALOG.full_version(v) for v in os.environ.get("KLAB_TEST_VERSIONS", "").split()] or [*CATALOG.kubernetes]
CELLS = [(box, v) for box, recipe in CATALOG.recipes.items() for v in recipe.kubernetes if v in VERSIONS]


@pytest.fixture(params=CELLS, ids=lambda cell: "-".join(cell))
def cell(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A box, and a version of Kubernetes that it can hold."""
    found: tuple[str, str] = request.param
    return found


@pytest.fixture
def lab(cell: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Lab]:
    box, version = cell
    scenario = yaml.safe_load((resources.path("scenarios") / "1m1w.yaml").read_text(encoding="utf-8"))
    kubernetes = {"version": version, "runtime": CATALOG.recipes[box].runtimes[0]}
    scenario |= {"name": "matrix", "box": box, "kubernetes": kubernetes}
    file = tmp_path / "matrix.yaml"
    file.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    with capfd.disabled():
        found = prepare(tmp_path, str(file), "matrix", version, box)
        try:
            say(f"Kubernetes {version} on {box}")
            assert found.create() == 0, "klab create failed; its messages are above"
            yield found
        finally:
            found.destroy()


def test_a_lab_runs_the_nginx_lesson(lab: Lab, cell: tuple[str, str]) -> None:
    version = cell[1]
    nodes = [node["status"]["nodeInfo"] for node in lab.get("nodes")["items"]]
    assert {node["kubeletVersion"] for node in nodes} == {f"v{version}"}
    assert json.loads(lab.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == f"v{version}"
    nginx_behind_a_node_port(lab)
    services_by_name(lab, *lab.nodes)
    for pod in lab.get("pods", "-n", "kube-system", "-l", "tier=control-plane")["items"]:
        assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0], pod["metadata"]["name"]
    (runtime,) = {node["containerRuntimeVersion"] for node in nodes}
    today = datetime.datetime.now(datetime.UTC).date()
    say(f"| {version} | {runtime.replace('://', ' ')} | {nodes[0]['osImage']} | {today} | Ready, nginx lesson |")
