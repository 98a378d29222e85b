"""The reference plug-ins as a pod network: ranges that follow from addresses, routes that follow from nodes."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network

import pytest

from lab.components.cni import bridge, networks
from lab.components.cni.base import Observed
from lab.errors import ScenarioError
from lab.plan.changes import with_node, without_nodes
from lab.plan.decide import decide
from lab.plan.foreign import plan_problems
from lab.plan.model import Plan
from lab.render.cloudinit import render_seed
from lab.render.node_script import render_node_script
from lab.render.node_update import render_update
from lab.render.secrets import KeyPair, Secrets
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario

BRIDGE = networks()["bridge"]
PAIR = KeyPair("", "")
SECRETS = Secrets("ssh-ed25519 AAAA a", PAIR, PAIR, PAIR, PAIR, "abcdef.0123456789abcdef")


def plan_of(text: str = "kubernetes: {cni: bridge}") -> Plan:
    catalog = load_catalog()
    base = "version: 1\nname: a\ntopology: {control_planes: 1, workers: 2}\n"
    return decide(parse_scenario(f"{base}{text}\n", catalog), catalog)


def ranges(plan: Plan) -> dict[str, str]:
    return {node.name: str(bridge.pods_of(plan, node)) for node in plan.nodes}


def test_a_nodes_range_follows_from_its_address() -> None:
    assert ranges(plan_of()) == {"cp1": "10.244.11.0/24", "w1": "10.244.21.0/24", "w2": "10.244.22.0/24"}


@pytest.mark.parametrize(
    ("pods", "lab"),
    [("10.0.0.0/8", "192.168.56.0/24"), ("10.244.0.0/18", "192.168.56.0/24"), ("10.0.0.0/10", "172.16.0.0/16"),
     ("10.244.0.0/22", "192.168.56.0/28")],
)  # fmt: skip
def test_no_two_addresses_of_a_lab_have_one_range(pods: str, lab: str) -> None:
    plan = plan_of()
    plan = replace(
        plan,
        kubernetes=replace(plan.kubernetes, pod_cidr=IPv4Network(pods)),
        networks=replace(plan.networks, cidr=IPv4Network(lab)),
    )
    assert BRIDGE.refusal(plan.kubernetes.pod_cidr, plan.networks.cidr) == ""
    found = [bridge.pods_of(plan, replace(plan.nodes[0], address=address)) for address in IPv4Network(lab)]
    assert all(part.subnet_of(IPv4Network(pods)) and 24 <= part.prefixlen <= 26 for part in found)
    assert len(set(found)) == len(found) == IPv4Network(lab).num_addresses
    assert not any(first.overlaps(second) for first, second in itertools.pairwise(found))


def test_ranges_stay_when_others_come_and_go() -> None:
    plan = plan_of()
    grown = with_node(without_nodes(plan, ["w1"]), "worker", "w3")
    assert ranges(grown)["w2"] == ranges(plan)["w2"]
    assert len(set(ranges(grown).values())) == 3


def test_a_range_with_too_little_room_is_refused_with_its_line() -> None:
    with pytest.raises(ScenarioError) as caught:
        plan_of("kubernetes:\n  cni: bridge\n  pod_cidr: 10.244.0.0/19")
    assert "line 6: kubernetes.pod_cidr: the pod network bridge has a part" in str(caught.value)
    assert "a /18 or wider is needed; given: /19" in str(caught.value)
    assert plan_of("kubernetes:\n  cni: flannel\n  pod_cidr: 10.244.0.0/19").kubernetes.cni == "flannel"


def test_a_strangers_plan_is_held_to_the_same() -> None:
    plan = plan_of()
    assert plan_problems(plan) == []
    narrow = replace(plan, kubernetes=replace(plan.kubernetes, pod_cidr=IPv4Network("10.244.0.0/20")))
    assert any("a /18 or wider is needed" in line for line in plan_problems(narrow))


def test_the_node_tells_the_cluster_its_range_as_its_kubelet() -> None:
    script = render_node_script(plan_of(), plan_of().nodes[1])
    patch = {"spec": {"podCIDR": "10.244.21.0/24", "podCIDRs": ["10.244.21.0/24"]}}
    assert f"patch node w1 -p '{json.dumps(patch)}'" in script
    assert script.index("say join done") < script.index("--kubeconfig=/etc/kubernetes/kubelet.conf")


@pytest.mark.parametrize(("bootstrap", "there"), [("full", True), ("prepared", True), ("none", False)])
def test_files_and_routes_are_there_where_the_node_is_prepared(bootstrap: str, there: bool) -> None:
    plan = plan_of(f"bootstrap: {bootstrap}\nkubernetes: {{cni: bridge}}")
    seed = render_seed(plan, plan.nodes[0], SECRETS)["user-data"]
    for text in (bridge.CNI_FILE, bridge.ROUTES_FILE, "ip route replace 10.244.21.0/24 via 192.168.56.21"):
        assert (text in seed) is there
    assert ("patch node" in seed) is (bootstrap == "full")


def test_the_others_learn_of_a_new_node() -> None:
    plan = with_node(plan_of(), "worker", "w3")
    update = render_update(plan, plan.nodes[0])
    assert f"if put {bridge.ROUTES_FILE} <<" in update
    assert "ip route replace 10.244.23.0/24 via 192.168.56.23 dev eth1 proto static" in update
    assert "Destination=10.244.11.0/24" not in update, "its own pods are on its bridge"
    flannel = render_update(plan_of("kubernetes: {cni: flannel}"), plan.nodes[0])
    assert "ip route" not in flannel


@dataclass
class Unit:
    active: str = "active"


@dataclass
class State:
    cni: tuple[str, ...] = (bridge.CNI_FILE,)
    subnet: bool = False
    units: dict[str, Unit] = field(default_factory=lambda: {bridge.UNIT: Unit()})

    def unit(self, name: str) -> Unit:
        return self.units[name]


class Commands:
    converge = "again"

    def kubectl(self, *arguments: str) -> str:
        return f"kubectl {' '.join(arguments)}"

    def ssh(self, node: str, command: str) -> str:
        return f"{node}: {command}"

    def recreate_node(self, node: str) -> str:
        return f"replace {node}"


def test_what_doctor_finds() -> None:
    def found(state: State) -> list[str]:
        return [each.repair for each in BRIDGE.problems(Observed("w1", state, False, None), Commands())]

    assert found(State()) == []
    assert found(State(cni=())) == ["replace w1"]
    assert found(State(units={bridge.UNIT: Unit("failed")})) == ["w1: sudo systemctl restart klab-pods"]
