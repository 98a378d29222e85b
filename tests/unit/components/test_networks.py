"""Pod networks: what each answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from lab.cluster.observe.facts import PodFacts
from lab.components.cni import networks
from lab.components.cni.base import Observed, PodNetwork
from lab.components.cni.flannel import LINK_FILE
from lab.components.kubernetes.versions import KubernetesVersion
from lab.plan.decide import decide
from lab.plan.file import from_json, to_data, to_json
from lab.plan.model import Plan
from lab.plan.versions import with_version
from lab.scenario.catalog import Catalog, load_catalog
from lab.scenario.parser import parse_scenario

VERSIONS = {"calico": "3.28.5", "flannel": "0.28.4", "flannel_cni": "0.9.1", "weave": "2.8.1"}


def catalog() -> Catalog:
    """A catalog with boxes for every network."""
    there = load_catalog()
    with_all = {
        number: replace(version, components=tuple(VERSIONS.items())) for number, version in there.kubernetes.items()
    }
    return replace(there, kubernetes=with_all, cnis=tuple(networks()))


def plan_of(cni: str, more: str = "") -> Plan:
    text = f"version: 1\nname: a\ntopology: {{control_planes: 1, workers: 2}}\nkubernetes: {{cni: {cni}{more}}}\n"
    return decide(parse_scenario(text, catalog()), catalog())


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
    assert sorted(pods.images(VERSIONS)) == sorted(pods.repositories)
    for image in pods.images(VERSIONS).values():
        assert image in plan.kubernetes.versions.images.values()


@pytest.mark.parametrize("number", ["1.16.3", "1.17.0", "1.37.2"])
@pytest.mark.parametrize("name", networks())
def test_critical_pods_are_where_the_version_takes_them(name: str, number: str) -> None:
    """Before 1.17 the API server forbids them outside kube-system, and says so to the controller alone."""
    plan = plan_of(name)
    plan = with_version(plan, replace(plan.kubernetes.versions, version=number))
    for thing in networks()[name].manifest(plan):
        pod = thing.get("spec", {}).get("template", {}).get("spec", {})
        restricted = number == "1.16.3" and thing["metadata"].get("namespace") != "kube-system"
        if thing["kind"] in {"DaemonSet", "Deployment"}:
            assert pod.get("priorityClassName", "").startswith("system-") is not restricted


@pytest.mark.parametrize(
    ("number", "given"), [("1.16.3", True), ("1.18.0", True), ("1.19.0", False), ("1.37.2", False)]
)
def test_flannel_makes_checksums_itself_where_kube_proxy_masquerades_twice(number: str, given: bool) -> None:
    plan = plan_of("flannel")
    plan = with_version(plan, replace(plan.kubernetes.versions, version=number))
    for files in (networks()["flannel"].seed_files, networks()["flannel"].prepared_files):
        found = {file.path: file.content for file in files(plan, plan.nodes[0])}
        assert (LINK_FILE in found) is given
        assert "TransmitChecksumOffload=no" in found.get(LINK_FILE, "TransmitChecksumOffload=no")


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
    data = {key: value for key, value in versions.as_data().items() if key not in VERSIONS}
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


@pytest.mark.parametrize("name", ["calico", "flannel", "weave"])
def test_a_daemon_runs_on_every_node_and_asks_the_api_server_where_it_is(name: str) -> None:
    plan = plan_of(name)
    (daemon,) = [thing for thing in networks()[name].manifest(plan) if thing["kind"] == "DaemonSet"]
    pod = daemon["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert {"operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    main = pod["containers"][0]
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": str(plan.api_endpoint[0])} in main["env"]
    for part in (*pod["containers"], *pod.get("initContainers", ())):
        assert part["image"] in plan.kubernetes.versions.images.values()
        assert {mount["name"] for mount in part["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize(("name", "setting"), [("calico", "CALICO_IPV4POOL_CIDR"), ("weave", "IPALLOC_RANGE")])
def test_a_daemon_is_told_the_range_of_pods(name: str, setting: str) -> None:
    plan = plan_of(name, ", pod_cidr: 10.200.0.0/16")
    (daemon,) = [thing for thing in networks()[name].manifest(plan) if thing["kind"] == "DaemonSet"]
    settings = {each["name"]: each.get("value") for each in daemon["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert settings[setting] == "10.200.0.0/16"
    assert settings.get("IP_AUTODETECTION_METHOD", "interface=eth1") == "interface=eth1"
    assert "WEAVE_PASSWORD" not in settings


@pytest.mark.parametrize("name", ["calico", "weave"])
def test_every_account_may_do_something_and_every_rule_is_somebodys(name: str) -> None:
    things = networks()[name].manifest(plan_of(name))
    accounts = {thing["metadata"]["name"] for thing in things if thing["kind"] == "ServiceAccount"}
    roles = {thing["metadata"]["name"] for thing in things if thing["kind"] in {"ClusterRole", "Role"}}
    bound = {(thing["roleRef"]["name"], thing["subjects"][0]["name"]) for thing in things if "roleRef" in thing}
    assert {role for role, _ in bound} == roles
    assert {who for _, who in bound} == accounts
    keys = [(thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]) for thing in things]
    assert len(set(keys)) == len(keys)


@dataclass
class State:
    cni: tuple[str, ...]
    subnet: bool = True


class Commands:
    converge = "again"

    def kubectl(self, *arguments: str) -> str:
        return f"kubectl {' '.join(arguments)}"

    def ssh(self, node: str, command: str) -> str:
        return f"{node}: {command}"


@pytest.mark.parametrize("name", ["calico", "weave"])
def test_what_doctor_finds_of_a_daemon(name: str) -> None:
    pods = networks()[name]
    daemon, file = pods.pods[0], pods.cni_file  # type: ignore[attr-defined]

    def found(there: tuple[PodFacts, ...] | None, cni: tuple[str, ...] = (file,), *, unheard: bool = False) -> Any:
        seen = Observed("w1", State(cni), unheard, there)  # type: ignore[arg-type]
        return [(each.what, each.repair) for each in pods.problems(seen, Commands())]  # type: ignore[arg-type]

    here = PodFacts("kube-system", f"{daemon}-1", "w1", ready=True)
    elsewhere, sick = replace(here, node="w2"), replace(here, ready=False, why="CrashLoopBackOff")
    again = f"kubectl delete pod -n kube-system {daemon}-1"
    assert found((here,)) == found(None) == []
    assert found((sick,)) == [(f"{name} is not ready there", again)]
    assert found((sick,), unheard=True) == []
    restart = f"kubectl rollout restart -n kube-system daemonset/{daemon}"
    assert found((elsewhere,)) == [(f"{name} has no pod there", restart)]
    assert found(()) == [(f"{name} has no pod there", "again")]
    ((what, repair),) = found((here,), cni=())
    assert ("CNI configuration is missing" in what, repair) == (True, again)
