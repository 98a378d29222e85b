"""What no box holds of a scenario, which is valid all the same."""

from __future__ import annotations

import pytest

from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.plan.needs import lacking
from lab.scenario.catalog import Catalog
from lab.scenario.library import load_scenario, shipped_names
from lab.scenario.parser import parse_scenario


def plan_of(catalog: Catalog, kubernetes: str, more: str = "") -> Plan:
    return decide(parse_scenario(f"version: 1\nname: x\nkubernetes: {{{kubernetes}}}\n{more}", catalog), catalog)


@pytest.mark.parametrize(
    ("kubernetes", "lines"),
    [
        ("runtime: containerd, cni: bridge", []),
        (
            "runtime: cri-o",
            ["the runtime cri-o (Debian's conmon, runc, and crio, pinns, crictl); the box debian-13 has containerd"],
        ),
        (
            "cni: weave",
            [
                "the pod network weave (an image pack with docker.io/weaveworks/weave-kube, "
                "docker.io/weaveworks/weave-npc); the box debian-13 has flannel, none, bridge"
            ],
        ),
        (
            "version: '1.28.0', runtime: docker",
            [
                "the runtime docker (Debian's docker.io, apparmor, and cri-dockerd); the box debian-13 has containerd",
            ],
        ),
        (
            "version: '1.23.0', runtime: docker, cni: calico",
            [
                "the runtime docker, which the box debian-12 has; the box debian-13 has containerd",
                "the pod network calico (an image pack with docker.io/calico/cni, docker.io/calico/node, "
                "docker.io/calico/kube-controllers); the box debian-13 has flannel, none, bridge",
            ],
        ),
    ],
)
def test_what_is_missing(catalog: Catalog, kubernetes: str, lines: list[str]) -> None:
    assert lacking(plan_of(catalog, kubernetes), catalog) == lines


def test_a_version_that_only_another_box_has(catalog: Catalog) -> None:
    plan = plan_of(catalog, "version: '1.35.4', runtime: docker", "box: debian-12\n")
    (line,) = lacking(plan, catalog)
    assert line.startswith("Kubernetes 1.35.4, which the box debian-13 has; the box debian-12 has ")


def test_plain_machines_need_no_runtime_and_no_network(catalog: Catalog) -> None:
    assert lacking(plan_of(catalog, "runtime: cri-o, cni: calico", "bootstrap: none\n"), catalog) == []
    assert len(lacking(plan_of(catalog, "runtime: cri-o, cni: calico", "bootstrap: prepared\n"), catalog)) == 2


def test_a_network_that_no_box_holds_has_the_version_of_its_manifest(catalog: Catalog) -> None:
    plan = plan_of(catalog, "cni: calico")
    assert plan.kubernetes.versions.image("calico-node") == "docker.io/calico/node:v3.28.5"


def test_what_cannot_be_had_has_a_variant_that_can(catalog: Catalog) -> None:
    plans = {name: decide(load_scenario(name, catalog).scenario, catalog) for name in shipped_names()}
    without = [name for name, plan in plans.items() if lacking(plan, catalog)]
    assert without == ["cka-1.28", "intro-1.16"]
    for name in without:
        variants = [other for other in plans if other.startswith(f"{name}-")]
        assert any(not lacking(plans[other], catalog) for other in variants), name
