"""An upgrade of a lab at work: killed at each of its steps, by hand as in a lesson, and taken back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.lessons import nginx_behind_a_node_port
from support.real_lab import Lab, say
from support.upgrading import BEFORE, WEB, asked_all_the_time, upgrade_killed_at_each_step

from lab.components.kubernetes import DEFAULT

SCENARIO = "1m2w"
pytestmark = pytest.mark.incremental


def kubelets(lab: Lab) -> set[str]:
    return {node["status"]["nodeInfo"]["kubeletVersion"] for node in lab.get("nodes")["items"]}


def test_it_begins_with_the_version_before(lab: Lab) -> None:
    assert kubelets(lab) == {f"v{BEFORE}"}
    for node in lab.nodes:
        assert lab.on(node, "dpkg-query -W -f '${Version}' kubelet").strip() == f"{BEFORE}-1.1"
    lab.on("w1", "apt-mark hold kubelet")
    lab.kubectl("apply", "-f", "-", stdin=WEB)
    lab.kubectl("rollout", "status", "deployment/web", "--timeout=20m")


def test_a_service_answers_while_klab_is_killed_at_each_step(lab: Lab, tmp_path: Path) -> None:
    with asked_all_the_time(lab, tmp_path) as answers:
        killed = upgrade_killed_at_each_step(lab, DEFAULT)
    assert answers.failed == []
    assert len(answers.lines) > 100
    assert {node for node, _ in killed} >= {"cp1", "w1", "w2"}
    assert {phase for _, phase in killed} >= {"packages", "kubeadm upgrade", "drain", "kubelet"}


def test_every_part_has_the_new_version(lab: Lab) -> None:
    assert kubelets(lab) == {f"v{DEFAULT}"}
    assert lab.plan["kubernetes"]["versions"]["version"] == DEFAULT
    assert not any(node["spec"].get("unschedulable") for node in lab.get("nodes")["items"])
    for pod in lab.get("pods", "-n", "kube-system", "-l", "tier=control-plane")["items"]:
        images = {container["image"] for container in pod["spec"]["containers"]}
        assert all(image.endswith(f":v{DEFAULT}") or "/etcd:" in image for image in images), images
    for node in lab.nodes:
        assert lab.on(node, "kubeadm version -o short").strip() == f"v{DEFAULT}"
        assert lab.on(node, "dpkg-query -W -f '${Version}' kubelet").strip() == f"{DEFAULT}-1.1"
    assert lab.on("w1", "apt-mark showhold").strip() == "kubelet"
    status = lab.result("status", lab.name)
    assert (status["ready"], status["kubernetes"], status["upgrading_to"]) == (True, DEFAULT, "")
    # An extra control plane's worth of etcd's data came along: one member, with all keys.
    assert len(lab.get("deployments")["items"]) == 1


def test_the_same_again_has_nothing_to_do(lab: Lab) -> None:
    assert lab.result("upgrade", lab.name, "--to", DEFAULT)["nodes"] == []


def test_a_node_that_comes_later_has_the_new_version_and_the_old_box_may_go_on(lab: Lab) -> None:
    lab.klab("node", "add", lab.name, "w3")
    assert kubelets(lab) == {f"v{DEFAULT}"}
    record = (lab.folder / "lab.json").read_text()
    assert f"debian-13-k8s-{BEFORE}@" in record
    assert f"debian-13-k8s-{DEFAULT}@" in record
    lab.klab("node", "rm", lab.name, "w3")


def test_restore_takes_it_back(lab: Lab) -> None:
    lab.klab("restore", lab.name, f"before-{DEFAULT}")
    assert kubelets(lab) == {f"v{BEFORE}"}
    assert lab.plan["kubernetes"]["versions"]["version"] == BEFORE
    assert lab.result("status", lab.name)["ready"] is True


def test_by_hand_as_in_a_lesson(lab: Lab) -> None:
    """Its commands as klab prints them, and as a course has them."""
    told = lab.result("upgrade", lab.name, "--to", DEFAULT, "--prepare")
    assert told["version"] == DEFAULT
    assert kubelets(lab) == {f"v{BEFORE}"}
    listed = lab.on("cp1", "apt-cache madison kubeadm").splitlines()
    assert [line.split("|")[1].strip() for line in listed] == [f"{DEFAULT}-1.1", f"{BEFORE}-1.1"]
    lab.on("w1", "apt-mark unhold kubelet")  # restored with the disk
    plan = lab.on("cp1", f"apt-get install -qq -y kubeadm={DEFAULT}-1.1 > /dev/null && kubeadm upgrade plan v{DEFAULT}")
    assert f"kubeadm upgrade apply v{DEFAULT}" in plan
    for command in told["commands"]:
        say(command)
        node, _, words = command.partition(": ")
        if node in lab.nodes:
            # kubeadm gives the cluster fifteen seconds to run a Job, which an emulated one may not keep.
            words = words.replace("upgrade apply", "upgrade apply --yes --ignore-preflight-errors=CreateJob")
            lab.on(node, words)
        else:
            lab.kubectl(*command.split()[1:])
    assert kubelets(lab) == {f"v{DEFAULT}"}
    assert lab.result("upgrade", lab.name, "--to", DEFAULT)["nodes"] == []
    assert lab.plan["kubernetes"]["versions"]["version"] == DEFAULT
    lab.kubectl("delete", "deployment,service,poddisruptionbudget", "web")
    nginx_behind_a_node_port(lab)


def test_nothing_is_left(lab: Lab) -> None:
    if lab.stays:
        pytest.skip("the lab of KLAB_TEST_HOME stays")
    lab.klab("destroy", "-y", lab.name)
    assert subprocess.run(["pgrep", "-f", f"klab-{lab.name}_"], capture_output=True, check=False).returncode == 1
