"""Pod networks: what each answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.components.cni import networks
from lab.components.cni.base import PodNetwork
from lab.components.kubernetes.versions import KubernetesVersion
from lab.plan.decide import decide
from lab.plan.file import from_json, to_data, to_json
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario

VERSIONS = {"flannel": "0.28.4", "flannel_cni": "0.9.1"}


def plan_of(cni: str, more: str = "") -> Plan:
    catalog = load_catalog()
    text = f"version: 1\nname: a\ntopology: {{control_planes: 1, workers: 2}}\nkubernetes: {{cni: {cni}{more}}}\n"
    return decide(parse_scenario(text, catalog), catalog)


@pytest.mark.parametrize("name", networks())
def test_a_network_that_is_present_is_waited_for_and_checked(name: str) -> None:
    pods = networks()[name]
    plan = plan_of(name)
    if not pods.present:
        assert (pods.namespaces, pods.pods, list(pods.manifest(plan))) == ((), (), [])
        return
    assert pods.cni_file.startswith("/etc/cni/net.d/")
    assert bool(pods.manifest(plan)) == bool(pods.manifest_file) == bool(pods.namespaces) == bool(pods.pods)
    for thing in pods.manifest(plan):
        assert thing["metadata"].get("namespace", pods.namespaces[0]) in pods.namespaces
    for image in pods.images(VERSIONS).values():
        assert image in plan.kubernetes.versions.images.values()


def test_advice_looks_into_the_networks_own_namespaces() -> None:
    assert networks()["flannel"].advice("w1") == (
        "klab kubectl -- get pods -n kube-flannel -o wide; klab kubectl -- describe node w1"
    )
    assert networks()["none"].advice("w1") == "klab kubectl -- describe node w1"


def test_a_plan_keeps_the_versions_of_components_where_they_always_were() -> None:
    plan = plan_of("flannel")
    assert (
        to_data(plan)["kubernetes"]["versions"]["flannel_cni"]
        == dict(plan.kubernetes.versions.components)["flannel_cni"]
    )
    assert from_json(to_json(plan)) == plan


def test_a_plan_of_before_a_component_existed_is_read() -> None:
    versions = plan_of("none").kubernetes.versions
    data = {key: value for key, value in versions.as_data().items() if not key.startswith("flannel")}
    old = KubernetesVersion.from_data(data)
    assert old == replace(versions, components=())
    assert "flannel" not in old.images


@pytest.mark.parametrize(
    "change",
    [
        {"etcd": None},
        {"etcd": 3},
        {"unknown": "1"},
        {"flannel": ["0.28.4"]},
        {"version": None},
        {"version": "1.35"},
        {"version": "1.35.4-1"},
    ],
)
def test_versions_of_another_shape_are_refused(change: dict[str, object]) -> None:
    data = {**plan_of("none").kubernetes.versions.as_data(), **change}
    with pytest.raises(ValueError, match="KubernetesVersion"):
        KubernetesVersion.from_data({key: value for key, value in data.items() if value is not None})


def test_the_answers_of_a_network_without_needs() -> None:
    class Plain(PodNetwork):
        name = "plain"

    plan = plan_of("flannel")
    plain, node = Plain(), plan.nodes[0]
    assert plain.refusal(plan.kubernetes.pod_cidr, plan.networks.cidr) == ""
    assert (plain.before_kubeadm(plan, node), plain.after_kubeadm(plan, node)) == ("", "")
    assert [*plain.seed_files(plan, node), *plain.prepared_files(plan, node), *plain.updates(plan, node)] == []
