"""kubeadm's configuration for several Kubernetes versions, file by file, as a reviewer sees them change.

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
from lab.plan.model import Plan
from lab.render.kubeadm import render_init, render_join, render_patches

GOLDEN = Path(__file__).parent / "kubeadm"
SCENARIOS = ("1m2w", "ha-3m2w")
# What kubeadm of each version pins: kubeadm config images list.
PINS = {
    "1.28.15": {"etcd_image": "3.5.15-0", "coredns": "1.10.1", "pause": "3.9"},
    "1.30.14": {"etcd_image": "3.5.15-0", "coredns": "1.11.3", "pause": "3.9"},
    "1.31.14": {"etcd_image": "3.5.24-0", "coredns": "1.11.3", "pause": "3.10"},
    "1.35.4": {"etcd_image": "3.6.6-0", "coredns": "1.13.1", "pause": "3.10.1"},
    "1.37.2": {"etcd_image": "3.7.0-0", "coredns": "1.14.6", "pause": "3.10.2"},
}


def version_of(number: str) -> KubernetesVersion:
    pins = PINS[number]
    return KubernetesVersion(number, etcd=pins["etcd_image"].partition("-")[0], **pins)


def plan_with(scenario: str, number: str) -> Plan:
    plan = plan_of(scenario)
    return replace(plan, kubernetes=replace(plan.kubernetes, versions=version_of(number)))


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


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("number", PINS)
def test_configuration_is_as_reviewed(number: str, scenario: str) -> None:
    files, folder = rendered(scenario, number), GOLDEN / number / scenario
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


def test_old_registries_and_names_of_images() -> None:
    old = replace(version_of("1.28.15"), version="1.20.15").images
    assert old["kube-proxy"] == "k8s.gcr.io/kube-proxy:v1.20.15"
    assert old["coredns"].startswith("k8s.gcr.io/coredns:v")


def test_arguments_are_a_mapping_before_v1beta4() -> None:
    (old,) = yaml.safe_load_all(rendered("1m2w", "1.30.14")["join.yaml"])
    (new,) = yaml.safe_load_all(rendered("1m2w", "1.31.14")["join.yaml"])
    assert old["nodeRegistration"]["kubeletExtraArgs"] == {"node-ip": "192.168.56.21"}
    assert new["nodeRegistration"]["kubeletExtraArgs"] == [{"name": "node-ip", "value": "192.168.56.21"}]


def test_dns_is_patched_where_kubeadm_can() -> None:
    dns = "corednsdeployment+strategic.yaml"
    assert dns not in render_patches(plan_with("1m2w", "1.30.14"))
    assert dns in render_patches(plan_with("1m2w", "1.31.14"))
