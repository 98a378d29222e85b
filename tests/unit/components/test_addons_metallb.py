"""The add-on metallb: which addresses services get, and on which NIC they are answered for."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address
from typing import Any

import pytest

from lab.components.addons.metallb import COMPONENT, all_but, free_ranges
from lab.errors import UsageError
from lab.plan.changes import with_node
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario

NODES = "topology: {control_planes: 1, workers: 1}\n"
THREE = "topology: {control_planes: 3, workers: 2}\n"


def plan_of(cidr: str, topology: str = NODES, kubernetes: str = "1.35.4") -> Plan:
    catalog = load_catalog()
    text = f"version: 1\nname: a\nkubernetes: {{version: {kubernetes!r}}}\nnetwork: {{cidr: {cidr}}}\n{topology}"
    return decide(parse_scenario(text, catalog), catalog)


def ranges(plan: Plan) -> list[str]:
    return [f"{first}-{last}" for first, last in free_ranges(plan)]


def of_kind(kind: str, plan: Plan) -> list[Any]:
    return [each for each in COMPONENT.objects(plan) if each["kind"] == kind]


@pytest.mark.parametrize(
    ("cidr", "wanted"),
    [
        ("10.10.0.0/16", "10.10.0.200-10.10.0.239"),
        ("192.168.56.0/23", "192.168.56.200-192.168.56.239"),
        ("192.168.56.0/24", "192.168.56.200-192.168.56.239"),
        ("192.168.56.128/25", "192.168.56.228-192.168.56.247"),
        ("192.168.56.64/26", "192.168.56.114-192.168.56.123"),
        ("192.168.56.32/27", "192.168.56.57-192.168.56.61"),
        ("192.168.56.16/28", "192.168.56.28-192.168.56.30"),
    ],
)
@pytest.mark.parametrize("topology", ["", NODES, THREE])
def test_services_have_addresses_near_the_end_of_the_network(cidr: str, wanted: str, topology: str) -> None:
    plan = plan_of(cidr, topology)
    assert ranges(plan) == [wanted]
    (pool,) = of_kind("IPAddressPool", plan)
    assert pool["spec"] == {"addresses": [wanted]}
    assert COMPONENT.refusal(plan) == ""


def test_addresses_that_a_scenario_gives_away_are_left_out() -> None:
    nodes = ", ".join(
        f"{{name: n{i}, role: control-plane, address: 192.168.56.{last}}}" for i, last in enumerate((200, 210, 239))
    )
    plan = plan_of("192.168.56.0/24", f"topology: {{vip: 192.168.56.211, nodes: [{nodes}]}}\n")
    assert ranges(plan) == ["192.168.56.201-192.168.56.209", "192.168.56.212-192.168.56.238"]


@pytest.mark.parametrize(("cidr", "most"), [("192.168.56.0/24", 179), ("192.168.56.0/26", 29), ("192.168.56.0/28", 9)])
def test_so_many_workers_stay_clear_of_them(cidr: str, most: int) -> None:
    plan = plan_of(cidr, "topology: {control_planes: 1, workers: 1}\n")
    every, before = set(), free_ranges(plan)
    for first, last in before:
        every |= {IPv4Address(number) for number in range(int(first), int(last) + 1)}
    while len(plan.workers) < most:
        plan = with_node(plan, "worker")
    assert not every & {node.address for node in plan.nodes}
    assert with_node(plan, "worker").nodes[-1].address in every


def test_a_network_that_is_full_of_nodes_is_refused() -> None:
    plan = plan_of("192.168.56.0/28")
    while True:
        try:
            plan = with_node(plan, "worker")
        except UsageError:
            break
        if free_ranges(plan):
            assert COMPONENT.refusal(plan) == ""
    assert free_ranges(plan) == []
    assert COMPONENT.refusal(plan) == (
        "metallb has no address for services: nodes have all those near the end of 192.168.56.0/28"
    )


def test_a_cluster_that_is_too_old_is_told_so_first() -> None:
    plan = plan_of("192.168.56.0/24")
    assert COMPONENT.refusal(plan) == ""
    assert COMPONENT.since <= plan.kubernetes.versions.minor


def test_only_the_labs_nic_answers() -> None:
    plan = plan_of("192.168.56.0/24")
    (advertisement,) = of_kind("L2Advertisement", plan)
    assert advertisement["spec"] == {"ipAddressPools": ["lab"], "interfaces": ["eth1"]}
    (config,) = of_kind("ConfigMap", plan)
    (pattern,) = json.loads(config["data"]["excludel2.yaml"])["announcedInterfacesToExclude"]
    assert pattern == all_but("eth1")
    others = ("lo", "eth0", "eth2", "eth10", "enp1s0", "cni0", "veth1", "flannel.1", "kube-ipvs0", "vxlan.calico")
    assert all(re.search(pattern, name) for name in others)
    assert re.search(pattern, "eth1") is None


@pytest.mark.parametrize("topology", ["", NODES, THREE])
def test_control_planes_answer_too(topology: str) -> None:
    plan = plan_of("192.168.56.0/24", topology)
    for thing in (*of_kind("DaemonSet", plan), *of_kind("Deployment", plan)):
        taints = {each["key"] for each in thing["spec"]["template"]["spec"]["tolerations"]}
        assert {"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"} <= taints
    (speaker,) = of_kind("DaemonSet", plan)
    assert "--ignore-exclude-lb" in speaker["spec"]["template"]["spec"]["containers"][0]["args"]


def test_every_kind_that_the_programs_watch_is_defined() -> None:
    plan = plan_of("192.168.56.0/24")
    found = {each["spec"]["names"]["kind"]: each["spec"] for each in of_kind("CustomResourceDefinition", plan)}
    assert len(found) == 8
    for kind, spec in found.items():
        assert spec["scope"] == "Namespaced"
        names = ["v1beta1", "v1beta2"] if kind == "BGPPeer" else ["v1beta1"]
        assert [each["name"] for each in spec["versions"]] == names
        assert [each["storage"] for each in spec["versions"]] == [name == names[-1] for name in names]
        assert all(each["served"] and each["subresources"] == {"status": {}} for each in spec["versions"])
    (version,) = found["IPAddressPool"]["versions"]
    assert version["additionalPrinterColumns"] == [
        {"name": "Addresses", "type": "string", "jsonPath": ".spec.addresses"}
    ]
    assert "additionalPrinterColumns" not in found["Community"]["versions"][0]
