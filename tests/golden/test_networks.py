"""Pod networks that no box holds yet: their manifests and what a node's script does for them, as a reviewer sees them.

KLAB_GOLDEN=1 pytest tests/golden rewrites them (make golden). Nothing of these networks was run.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from golden.test_kubeadm import plan_with

from lab.components.cni import network
from lab.plan.model import Plan
from lab.render.node_script import render_node_script
from lab.render.pod_network import render_manifest

GOLDEN = Path(__file__).parent / "networks"
# Each with the versions that it is meant for.
CASES = {"calico": ("1.28.0", {"calico": "3.28.5"}), "weave": ("1.16.3", {"weave": "2.8.1"})}


def plan_of(name: str) -> Plan:
    number, components = CASES[name]
    plan = plan_with("1m2w", number)
    versions = replace(plan.kubernetes.versions, components=tuple(components.items()))
    return replace(plan, kubernetes=replace(plan.kubernetes, cni=name, versions=versions))


@pytest.mark.parametrize("name", CASES)
def test_network_is_as_reviewed(name: str) -> None:
    plan, folder = plan_of(name), GOLDEN / name
    files = {network(name).manifest_file: render_manifest(plan)}
    files["node-w1.sh"] = render_node_script(plan, plan.workers[0])
    if os.environ.get("KLAB_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    assert files == {path.name: path.read_text() for path in folder.iterdir()}
