"""kubeadm's configuration for several Kubernetes versions, file by file, as a reviewer sees them change; with Docker, a
node's script and the runtime's files as well.

KLAB_GOLDEN=1 pytest tests/golden rewrites them (make golden). Each version's own kubeadm judges them in
tests/integration/test_judges.py. None of this makes a version one that a scenario may name: recipes do.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from golden.test_seeds import SECRETS, plan_of

from lab.components.kubernetes.versions import KubernetesVersion, features
from lab.components.runtime import runtime
from lab.plan.model import Plan
from lab.render.kubeadm import render_init, render_join, render_patches
from lab.render.node_script import render_node_script

GOLDEN = Path(__file__).parent / "kubeadm"
SCENARIOS = ("1m2w", "ha-3m2w")
# Versions that are rendered with Docker: in the kubelet below 1.24, then with cri-dockerd.
WITH_DOCKER = ("1.16.3", "1.23.0", "1.28.0")
# What kubeadm of each version pins: kubeadm config images list.
PINS = {
    "1.16.3": {"etcd_image": "3.3.15-0", "coredns": "1.6.2", "pause": "3.1"},
    "1.23.0": {"etcd_image": "3.5.1-0", "coredns": "1.8.6", "pause": "3.6"},
    "1.28.0": {"etcd_image": "3.5.9-0", "coredns": "1.10.1", "pause": "3.9"},
    "1.28.15": {"etcd_image": "3.5.15-0", "coredns": "1.10.1", "pause": "3.9"},
    "1.30.14": {"etcd_image": "3.5.15-0", "coredns": "1.11.3", "pause": "3.9"},
    "1.31.14": {"etcd_image": "3.5.24-0", "coredns": "1.11.3", "pause": "3.10"},
    "1.32.13": {"etcd_image": "3.5.24-0", "coredns": "1.11.3", "pause": "3.10"},
    "1.33.13": {"etcd_image": "3.5.24-0", "coredns": "1.12.0", "pause": "3.10"},
    "1.34.4": {"etcd_image": "3.6.5-0", "coredns": "1.12.1", "pause": "3.10.1"},
    "1.35.4": {"etcd_image": "3.6.6-0", "coredns": "1.13.1", "pause": "3.10.1"},
    "1.36.3": {"etcd_image": "3.6.8-0", "coredns": "1.14.2", "pause": "3.10.2"},
    "1.37.2": {"etcd_image": "3.7.0-0", "coredns": "1.14.6", "pause": "3.10.2"},
}
# kubeadm of 1.16 cannot form etcd of all members at once: it has no patches.
CASES = [(number, scenario) for number in PINS for scenario in SCENARIOS if (number, scenario) != ("1.16.3", "ha-3m2w")]


def version_of(number: str) -> KubernetesVersion:
    pins = PINS[number]
    return KubernetesVersion(number, etcd=pins["etcd_image"].partition("-")[0], **pins)


def plan_with(scenario: str, number: str) -> Plan:
    plan = plan_of(scenario)
    runtime = "docker" if number in WITH_DOCKER else plan.kubernetes.runtime
    return replace(plan, kubernetes=replace(plan.kubernetes, versions=version_of(number), runtime=runtime))


def rendered(scenario: str, number: str) -> dict[str, str]:
    """By name: a configuration for each first node of its role, on a quick and on a slow host."""
    plan = plan_with(scenario, number)
    first, worker, last = plan.control_planes[0], plan.workers[0], plan.control_planes[-1]
    files = {
        "init.yaml": render_init(plan, first, SECRETS),
        "init-slow-host.yaml": render_init(plan, first, SECRETS, slow_host=True),
        "join.yaml": render_join(plan, worker, SECRETS),
        "join-slow-host.yaml": render_join(plan, worker, SECRETS, slow_host=True),
    }
    if last != first:
        files["join-control-plane.yaml"] = render_join(plan, last, SECRETS)
    return files


def on_nodes(scenario: str, number: str) -> dict[str, str]:
    """By name: the script of each first node of its role and of another control plane, and the runtime's files."""
    plan = plan_with(scenario, number)
    if number not in WITH_DOCKER:
        return {}
    nodes = dict.fromkeys((plan.control_planes[0], plan.workers[0], plan.control_planes[-1]))
    files = {f"node-{node.name}.sh": render_node_script(plan, node) for node in nodes}
    for file in runtime(plan.kubernetes.runtime).files(plan.kubernetes.versions, plan.mirrors):
        files[Path(file.path).name] = file.content
    return files


@pytest.mark.parametrize(("number", "scenario"), CASES)
def test_configuration_is_as_reviewed(number: str, scenario: str) -> None:
    files, folder = {**rendered(scenario, number), **on_nodes(scenario, number)}, GOLDEN / number / scenario
    if os.environ.get("KLAB_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    assert files == {path.name: path.read_text() for path in folder.iterdir()}


def test_the_box_of_today_is_among_them() -> None:
    (shipped,) = {plan_of(name).kubernetes.versions for name in SCENARIOS}
    assert replace(shipped, components=()) == version_of(shipped.version)


@pytest.mark.parametrize(
    ("minor", "api", "mode"),
    [
        ((1, 21), "v1beta2", "iptables"),
        ((1, 22), "v1beta3", "iptables"),
        ((1, 30), "v1beta3", "iptables"),
        ((1, 31), "v1beta4", "nftables"),
        ((1, 37), "v1beta4", "nftables"),
    ],
)
def test_api_and_proxy_mode_follow_the_version(minor: tuple[int, int], api: str, mode: str) -> None:
    found = features(minor)
    assert (found.kubeadm_api, found.proxy_mode) == (f"kubeadm.k8s.io/{api}", mode)


@pytest.mark.parametrize(
    ("minor", "roles"), [((1, 23), ["master"]), ((1, 24), ["master", "control-plane"]), ((1, 25), ["control-plane"])]
)
def test_taints_follow_the_version(minor: tuple[int, int], roles: list[str]) -> None:
    assert [taint["key"].rpartition("/")[2] for taint in features(minor).taints] == roles


@pytest.mark.parametrize(("number", "scheme"), [("1.16.3", ""), ("1.23.0", ""), ("1.28.0", "unix://")])
def test_dockershim_is_known_to_kubeadm_by_its_path_alone(number: str, scheme: str) -> None:
    (join,) = yaml.safe_load_all(rendered("1m2w", number)["join.yaml"])
    assert join["nodeRegistration"]["criSocket"].startswith(f"{scheme}/")


def test_kubeadm_of_116_gets_nothing_that_it_does_not_know() -> None:
    init, cluster, *_ = yaml.safe_load_all(rendered("1m2w", "1.16.3")["init-slow-host.yaml"])
    assert {"patches", "timeouts"}.isdisjoint(init)
    assert {"featureGates", "encryptionAlgorithm"}.isdisjoint(cluster)
    assert "imagePullPolicy" not in init["nodeRegistration"]
    assert cluster["apiServer"]["timeoutForControlPlane"] == "15m0s"


def test_the_phases_that_only_the_first_control_plane_does_are_those_of_its_kubeadm() -> None:
    assert (
        "--skip-phases=upload-config,upload-certs,bootstrap-token,addon "
        in on_nodes("ha-3m2w", "1.23.0")["node-cp3.sh"]
    )
    assert "bootstrap-token,addon,show-join-command " in on_nodes("ha-3m2w", "1.28.0")["node-cp3.sh"]


def test_a_kubelet_that_needs_cgroup_v1_is_not_started_without_it() -> None:
    script = on_nodes("1m2w", "1.16.3")["node-w1.sh"]
    assert 'fail join "Kubernetes 1.16.3 needs cgroup v1' in script
    assert "cgroup" not in on_nodes("1m2w", "1.23.0")["node-w1.sh"]


def test_old_registries_and_names_of_images() -> None:
    old = replace(version_of("1.28.15"), version="1.20.15").images
    assert old["kube-proxy"] == "k8s.gcr.io/kube-proxy:v1.20.15"
    assert old["coredns"] == "k8s.gcr.io/coredns:1.10.1"


def test_arguments_are_a_mapping_before_v1beta4() -> None:
    (old,) = yaml.safe_load_all(rendered("1m2w", "1.30.14")["join.yaml"])
    (new,) = yaml.safe_load_all(rendered("1m2w", "1.31.14")["join.yaml"])
    assert old["nodeRegistration"]["kubeletExtraArgs"] == {"node-ip": "192.168.56.21"}
    assert new["nodeRegistration"]["kubeletExtraArgs"] == [{"name": "node-ip", "value": "192.168.56.21"}]


def test_dns_is_patched_where_kubeadm_can() -> None:
    dns = "corednsdeployment+strategic.yaml"
    assert dns not in render_patches(plan_with("1m2w", "1.30.14"))
    assert dns in render_patches(plan_with("1m2w", "1.31.14"))
