"""The scripts of an upgrade: what kubeadm of each version is told, and that a shell reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from support.debian_node import UNITS, DebianNode, content

from lab import process
from lab.components.kubernetes.packages import KUBERNETES, PACKAGES, render_install
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


@pytest.mark.parametrize("held", ["", "kubelet"])
def test_what_a_person_holds_stays_held(tmp_path: Path, held: str) -> None:
    node = DebianNode(tmp_path)
    node.path("/var/log").mkdir(parents=True)
    node.stand_in("apt-mark", f'case "$1" in showhold) echo {held};; esac')
    node.run(upgrade.render_kubelet("1.35.4"))
    installed = "apt-get install -qq -y --allow-change-held-packages kubelet=1.35.4-1.1 kubectl=1.35.4-1.1"
    restarted = ["systemctl daemon-reload", "systemctl restart kubelet"]
    hold = [f"apt-mark hold {held}"] if held else []
    assert node.log == ["apt-mark showhold kubelet kubectl", installed, *hold, *restarted]


def test_by_hand() -> None:
    lines = upgrade.commands_by_hand(lab("1.35.4"))
    assert lines[0] == "cp1: sudo apt-get install -y kubeadm=1.35.4-1.1 && sudo kubeadm upgrade apply v1.35.4"
    assert lines[4] == "w1: sudo apt-get install -y kubeadm=1.35.4-1.1 && sudo kubeadm upgrade node"
    assert lines[5] == "kubectl drain w1 --ignore-daemonsets --delete-emptydir-data"
    assert lines[-1] == "kubectl uncordon w1"


def received(node: DebianNode, version: str) -> None:
    """What `render_receive` leaves on a node."""
    folder = upgrade.folder_of(version)
    node.programs(f"{folder}/bin", "kubeadm", "kubelet", "kubectl", "etcdctl", "etcdutl", text=version)
    blob = node.path(f"{folder}/registry/docker/registry/v2/blobs/data")
    blob.parent.mkdir(parents=True)
    blob.write_text("a blob")
    node.path("/var/lib/docker-registry").mkdir(parents=True, exist_ok=True)


@pytest.mark.skipif(not process.have("dpkg-deb"), reason="dpkg-deb is not installed")
@pytest.mark.parametrize("boxed", [True, False])
def test_packages_join_those_of_the_box(tmp_path: Path, boxed: bool) -> None:
    """Where the box is an older one, without packages, those of the new version are the only ones."""
    node = DebianNode(tmp_path)
    if boxed:
        node.programs("/usr/bin", *(package.program for package in PACKAGES))
        node.run(render_install(dict.fromkeys(PACKAGES, "1.36.3")))
    received(node, "1.37.2")
    for _ in range(2):
        node.run(upgrade.render_packages("1.37.2"))
    both = ["1.36.3-1.1", "1.37.2-1.1"] if boxed else ["1.37.2-1.1"]
    listed = [(each["Package"], each["Version"]) for each in node.index]
    wanted = {(package.name, version) for package in KUBERNETES for version in both}
    assert sorted(listed) == sorted(wanted | ({("cri-tools", "1.36.3-1.1")} if boxed else set()))
    # As the node had them: a package without them would take them away.
    assert f"-rw-r--r-- root/root .{UNITS}/kubelet.service" in content(node.packages["kubelet_1.37.2-1.1_amd64.deb"])
    assert node.path("/var/lib/docker-registry/docker/registry/v2/blobs/data").read_text() == "a blob"
    assert "1.37.2" in node.path("/usr/bin/etcdctl").read_text()
    assert [path.name for path in node.path(upgrade.folder_of("1.37.2")).iterdir()] == ["done"]
