"""Each version of Kubernetes on each box that can hold it: a real lab of two nodes until Ready, and the nginx lesson.

KLAB_TEST_VERSIONS chooses, by spaces; all that klab knows otherwise. KLAB_TEST_SCENARIOS names scenarios of klab's
instead, which are created as they are. A line for docs/versions.md is printed for each.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.lessons import nginx_behind_a_node_port, services_by_name
from support.real_lab import Lab, prepare, say

from lab import resources
from lab.app.boxes import DEFAULT_BOX
from lab.scenario.catalog import load_catalog

CATALOG = load_catalog()


@dataclass(frozen=True)
class Case:
    """A version of Kubernetes on a box; `scenario` is one of klab's, or empty for 1m1w with the two."""

    box: str
    version: str
    scenario: str = ""

    def __str__(self) -> str:
        return self.scenario or f"{self.box}-{self.version}"


def case_of(scenario: str) -> Case:
    said = yaml.safe_load((resources.path("scenarios") / f"{scenario}.yaml").read_text(encoding="utf-8"))
    version = CATALOG.full_version(said["kubernetes"]["version"])
    return Case(said.get("box", DEFAULT_BOX), version, scenario)


def cases() -> list[Case]:
    if scenarios := os.environ.get("KLAB_TEST_SCENARIOS", "").split():
        return [case_of(scenario) for scenario in scenarios]
    chosen = [CATALOG.full_version(version) for version in os.environ.get("KLAB_TEST_VERSIONS", "").split()]
    wanted = chosen or [*CATALOG.kubernetes]
    return [Case(box, v) for box, recipe in CATALOG.recipes.items() for v in recipe.kubernetes if v in wanted]


@pytest.fixture(params=cases(), ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def lab(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Lab]:
    scenario, name = case.scenario, "matrix"
    if not scenario:
        said = yaml.safe_load((resources.path("scenarios") / "1m1w.yaml").read_text(encoding="utf-8"))
        kubernetes = {"version": case.version, "runtime": CATALOG.recipes[case.box].runtimes[0]}
        said |= {"name": name, "box": case.box, "kubernetes": kubernetes}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(said), encoding="utf-8")
        scenario = str(file)
    with capfd.disabled():
        found = prepare(tmp_path, scenario, name, case.version, case.box)
        try:
            say(f"Kubernetes {case.version} on {case.box}{f': {case.scenario}' if case.scenario else ''}")
            assert found.create() == 0, "klab create failed; its messages are above"
            yield found
        finally:
            found.destroy()


def test_a_lab_runs_the_nginx_lesson(lab: Lab, case: Case) -> None:
    nodes = [node["status"]["nodeInfo"] for node in lab.get("nodes")["items"]]
    assert {node["kubeletVersion"] for node in nodes} == {f"v{case.version}"}
    assert json.loads(lab.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == f"v{case.version}"
    nginx_behind_a_node_port(lab)
    services_by_name(lab, *lab.nodes)
    for pod in lab.get("pods", "-n", "kube-system", "-l", "tier=control-plane")["items"]:
        assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0], pod["metadata"]["name"]
    (runtime,) = {node["containerRuntimeVersion"] for node in nodes}
    today = datetime.datetime.now(datetime.UTC).date()
    labelled = f"{case.scenario}: " if case.scenario else ""
    image = nodes[0]["osImage"]
    say(f"| {case.version} | {runtime.replace('://', ' ')} | {image} | {today} | {labelled}Ready, nginx lesson |")
