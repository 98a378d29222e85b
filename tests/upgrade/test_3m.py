"""Three control planes behind a virtual IP: one is upgraded after the other, and a Service answers meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.real_lab import Lab
from support.upgrading import BEFORE, WEB, asked_all_the_time, upgrade_killed_at_each_step

from lab.components.kubernetes import DEFAULT

SCENARIO = "3m"
pytestmark = pytest.mark.incremental


def test_it_begins_with_the_version_before(lab: Lab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=WEB)
    lab.kubectl("rollout", "status", "deployment/web", "--timeout=30m")
    assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in lab.get("nodes")["items"]} == {f"v{BEFORE}"}


def test_a_service_answers_while_klab_is_killed_at_each_step(lab: Lab, tmp_path: Path) -> None:
    with asked_all_the_time(lab, tmp_path) as answers:
        killed = upgrade_killed_at_each_step(lab, DEFAULT)
    assert answers.failed == []
    assert {node for node, _ in killed} >= {"cp1", "cp2", "cp3"}


def test_every_member_and_every_part_has_the_new_version(lab: Lab) -> None:
    nodes = lab.get("nodes")["items"]
    assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes} == {f"v{DEFAULT}"}
    status = lab.result("status", lab.name)
    assert status["ready"] is True
    assert (status["etcd"]["answering"], status["etcd"]["voters"]) == (3, 3)
    for pod in lab.get("pods", "-n", "kube-system", "-l", "component=kube-apiserver")["items"]:
        assert pod["spec"]["containers"][0]["image"].endswith(f":v{DEFAULT}")
