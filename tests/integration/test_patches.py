"""klab's patches for kubeadm, applied by kubeadm itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import process
from lab.cluster.secrets import load_or_make
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.kubeadm import PATCHES_FOLDER, render_init, render_patches
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder

SPREAD = "topologySpreadConstraints"


def plan_of(planes: int) -> Plan:
    catalog = load_catalog()
    return decide(parse_scenario(f"version: 1\nname: p\ntopology: {{control_planes: {planes}}}\n", catalog), catalog)


def coredns(plan: Plan, place: Path, kubeadm: Path) -> dict[str, Any]:
    """The pods' part of CoreDNS' deployment as kubeadm would give it to the cluster."""
    secrets = load_or_make(LabFolder(place / "lab"))
    patches = place / "patches"
    patches.mkdir()
    for name, text in render_patches(plan).items():
        (patches / name).write_text(text)
    config = render_init(plan, plan.control_planes[0], secrets).replace(PATCHES_FOLDER, str(patches))
    (place / "kubeadm.yaml").write_text(config)
    argv = [kubeadm, "init", "phase", "addon", "coredns", "--config", place / "kubeadm.yaml", "--print-manifest"]
    # Between the objects kubeadm says which patches it has read.
    told = process.run(argv, timeout=60).stdout.split("---")
    (deployment,) = [yaml.safe_load(text) for text in told if text.startswith("apiVersion: apps/")]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("planes", [1, 3])
def test_dns_of_several_control_planes_stands_on_two_nodes(planes: int, tmp_path: Path, kubeadm: Path) -> None:
    spec = coredns(plan_of(planes), tmp_path, kubeadm)
    assert spec["containers"][0]["readinessProbe"]["periodSeconds"] == 2
    assert "image" in spec["containers"][0], "the rest is as kubeadm has it"
    if planes == 1:
        assert SPREAD not in spec
        return
    (spread,) = spec[SPREAD]
    assert (spread["maxSkew"], spread["whenUnsatisfiable"]) == (1, "DoNotSchedule")
    assert spread["labelSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
