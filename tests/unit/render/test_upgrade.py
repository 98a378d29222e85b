"""The scripts of an upgrade: what kubeadm of each version is told, and that a shell reads them."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.plan.versions import with_version
from lab.render import upgrade
from lab.render.kubeadm import render_upgrade
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology

CATALOG = load_catalog()


def lab(version: str, planes: int = 1) -> Plan:
    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=planes, workers=1)), CATALOG)
    return with_version(plan, CATALOG.kubernetes[version])


def scripts(version: str) -> list[str]:
    plan = lab(version, planes=3)
    kubeadm = [
        upgrade.render_kubeadm(plan, node, first=first, slow_host=slow)
        for node, first in ((plan.nodes[0], True), (plan.nodes[1], False), (plan.nodes[-1], False))
        for slow in (False, True)
    ]
    return [upgrade.render_packages(version), upgrade.render_kubelet(version), *kubeadm]


@pytest.mark.parametrize("version", CATALOG.kubernetes)
def test_a_shell_reads_them_and_does_nothing_of_half_a_script(version: str) -> None:
    for script in [*scripts(version), upgrade.render_look(version), upgrade.render_receive(version)]:
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    for script in scripts(version):
        half = script[: len(script) // 2]
        done = subprocess.run(["bash", "-s"], input=half, text=True, capture_output=True, check=False)
        assert "unexpected" in done.stderr
        assert not done.stdout


def test_what_kubeadm_is_told_in_a_file() -> None:
    told = yaml.safe_load(render_upgrade(lab("1.35.4"), slow_host=True, patches="/patches"))
    assert told["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    assert told["apply"]["kubernetesVersion"] == "v1.35.4"
    assert told["apply"]["ignorePreflightErrors"] == ["CreateJob"]
    assert told["node"] == {
        "certificateRenewal": False,
        "imagePullPolicy": "IfNotPresent",
        "patches": {"directory": "/patches"},
    }
    assert "upgradeManifests" in told["timeouts"]
    quick = yaml.safe_load(render_upgrade(lab("1.35.4"), slow_host=False))
    assert "timeouts" not in quick
    assert "ignorePreflightErrors" not in quick["apply"]


def test_what_an_older_kubeadm_is_told_by_flags() -> None:
    plan = lab("1.28.0", planes=3)
    first = upgrade.render_kubeadm(plan, plan.nodes[0], first=True, slow_host=True)
    assert (
        "kubeadm upgrade apply v1.28.0 --yes --certificate-renewal=false --patches /etc/klab-upgrade/patches" in first
    )
    worker = upgrade.render_kubeadm(plan, plan.nodes[-1], first=False, slow_host=True)
    assert "kubeadm upgrade node --certificate-renewal=false >>" in worker
    assert "--config" not in first + worker


def test_etcds_flags_of_the_first_day_do_not_come_back() -> None:
    plan = lab("1.35.4", planes=3)
    script = upgrade.render_kubeadm(plan, plan.nodes[0], first=True, slow_host=True)
    assert "kube-apiserver+strategic.yaml" in script
    assert "initial-cluster" not in script


def test_by_hand() -> None:
    lines = upgrade.commands_by_hand(lab("1.35.4"))
    assert lines[0] == "cp1: sudo apt-get install -y kubeadm=1.35.4-1.1 && sudo kubeadm upgrade apply v1.35.4"
    assert lines[4] == "w1: sudo apt-get install -y kubeadm=1.35.4-1.1 && sudo kubeadm upgrade node"
    assert lines[5] == "kubectl drain w1 --ignore-daemonsets --delete-emptydir-data"
    assert lines[-1] == "kubectl uncordon w1"
