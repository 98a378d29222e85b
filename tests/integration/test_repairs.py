"""The repairs that klab doctor names, before the programs that carry them out."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from lab import process
from lab.cluster.diagnostics.repair import manifest_again
from lab.cluster.observe.node_report import STATIC_PODS
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario


def plan_of(planes: int) -> Plan:
    catalog = load_catalog()
    text = f"version: 1\nname: planes\ntopology: {{control_planes: {planes}, workers: 1}}\n"
    return decide(parse_scenario(text, catalog), catalog)


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("pod", STATIC_PODS)
def test_kubeadm_writes_the_manifest_again(pod: str, planes: int, tmp_path: Path, kubeadm: Path) -> None:
    plan = plan_of(planes)
    node = plan.control_planes[-1]
    config = tmp_path / "kubeadm.yaml"
    written, order, *ends = manifest_again(plan, node, pod).replace("/tmp/kubeadm.yaml", str(config)).split("; sudo ")
    assert ends == (["pkill -x kube-apiserver || true"] if pod == "etcd" else [])
    subprocess.run(["bash", "-c", written], check=True)
    process.run([kubeadm, "config", "validate", "--config", config], timeout=60)
    for kind in yaml.safe_load_all(config.read_text()):
        assert kind["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    words = shlex.split(order)
    assert words[0] == "kubeadm"
    made = tmp_path / "made"
    env = {**os.environ, "KUBEADM_INIT_DRYRUN_DIR": str(made)}
    made.mkdir()
    process.run([kubeadm, *words[1:], "--dry-run"], timeout=60, env=env)
    manifest = yaml.safe_load((made / f"{pod}.yaml").read_text())
    (container,) = manifest["spec"]["containers"]
    assert container["image"] == plan.kubernetes.versions.image(pod)
    command = container["command"]
    if pod == "etcd":
        assert f"--name={node.name}" in command
        assert f"--advertise-client-urls=https://{node.address}:2379" in command
    if pod == "kube-apiserver":
        assert f"--advertise-address={node.address}" in command
        assert f"--service-cluster-ip-range={plan.kubernetes.service_cidr}" in command
    if pod == "kube-controller-manager":
        assert f"--cluster-cidr={plan.kubernetes.pod_cidr}" in command
        assert f"--cluster-name={plan.name}" in command
