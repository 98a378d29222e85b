"""A plan from a stranger: only what klab itself could have decided is taken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.plan.changes import with_node, without_nodes
from lab.plan.decide import decide
from lab.plan.file import from_json, to_json
from lab.plan.foreign import plan_problems
from lab.plan.model import Plan
from lab.render.inventory import GROUPS, group_name
from lab.scenario.catalog import load_catalog
from lab.scenario.kinds import RESERVED_GROUPS, RESERVED_HOSTNAMES, check_node_name
from lab.scenario.library import load_scenario, shipped_names
from lab.text import visible

CATALOG = load_catalog()


def plan_of(name: str, seat: int = 0) -> Plan:
    return decide(load_scenario(name, CATALOG).scenario, CATALOG, seat=seat)


@pytest.mark.parametrize("name", shipped_names())
@pytest.mark.parametrize("seat", [0, 5])
def test_klabs_own_plans_pass(name: str, seat: int) -> None:
    plan = plan_of(name, seat)
    assert plan_problems(plan) == []
    grown = with_node(plan, "worker", "another")
    assert plan_problems(grown) == []
    assert plan_problems(without_nodes(grown, [plan.nodes[-1].name])) == []


HOSTILE = "x'/><y z='"


def node(**values: Any) -> Callable[[Plan], Plan]:
    return lambda plan: dataclasses.replace(
        plan, nodes=(plan.nodes[0], dataclasses.replace(plan.nodes[1], **values), *plan.nodes[2:])
    )


def same_as_first(name: str) -> Callable[[Plan], Plan]:
    return lambda plan: node(**{name: getattr(plan.nodes[0], name)})(plan)


def networks(**values: Any) -> Callable[[Plan], Plan]:
    return lambda plan: dataclasses.replace(plan, networks=dataclasses.replace(plan.networks, **values))


def kubernetes(**values: Any) -> Callable[[Plan], Plan]:
    return lambda plan: dataclasses.replace(plan, kubernetes=dataclasses.replace(plan.kubernetes, **values))


def version(component: str, value: str) -> Callable[[Plan], Plan]:
    def changed(plan: Plan) -> Plan:
        versions = plan.kubernetes.versions
        others = dict(versions.components)
        values = (
            {"components": tuple({**others, component: value}.items())} if component in others else {component: value}
        )
        return kubernetes(versions=dataclasses.replace(versions, **values))(plan)

    return changed


def balancer(**values: Any) -> Callable[[Plan], Plan]:
    def changed(plan: Plan) -> Plan:
        assert plan.load_balancer is not None
        return dataclasses.replace(plan, load_balancer=dataclasses.replace(plan.load_balancer, **values))

    return changed


def whole(**values: Any) -> Callable[[Plan], Plan]:
    return lambda plan: dataclasses.replace(plan, **values)


def lab_network(text: str) -> Callable[[Plan], Plan]:
    network = IPv4Network(text)
    return networks(cidr=network, gateway=network[1])


@pytest.mark.parametrize(
    "change",
    [
        whole(name="../x"),
        whole(name="control-plane-endpoint"),
        whole(scenario=HOSTILE),
        whole(box="../box"),
        whole(pool=HOSTILE),
        whole(cpu_model=HOSTILE),
        whole(cpu_model="host\n"),
        whole(seat=-1),
        whole(seat=10**30),
        whole(nodes=()),
        whole(mirrors=(("..", "http://m"),)),
        whole(mirrors=(("docker.io", 'http://m"]\nx = 1'),)),
        whole(mirrors=(("docker.io", "file:///etc/passwd"),)),
        whole(addons=("a\x1b[2J.yaml",)),
        whole(addons=("a",) * 101),
        whole(load_balancer=None),
        node(name="workers"),
        node(name="ip6-localhost"),
        node(name="a\nb"),
        node(cpus=0),
        node(cpus=10**30),
        node(memory=0),
        node(memory=10**30),
        node(disk=-1),
        node(disk=4000),
        node(uuid="<uuid/>"),
        node(uuid="{" + "0" * 32 + "}"),
        node(mac="52:54:00:00:00:0g"),
        node(mac="ff:ff:ff:ff:ff:ff"),
        node(management_mac="52:54:00:AA:BB:CC"),
        node(address=IPv4Address("10.1.2.3")),
        node(address=IPv4Address("192.168.56.0")),
        node(address=IPv4Address("192.168.56.1")),
        node(address=IPv4Address("192.168.56.255")),
        node(address=IPv4Address("192.168.56.10")),
        *map(same_as_first, ("name", "uuid", "mac", "management_mac", "address")),
        lab_network("8.8.8.0/24"),
        lab_network("127.0.0.0/16"),
        lab_network("224.0.0.0/16"),
        lab_network("0.1.0.0/16"),
        lab_network("192.0.2.0/24"),
        lab_network("10.244.0.0/16"),
        networks(gateway=IPv4Address("192.168.56.2")),
        networks(name="default"),
        networks(management_name="default"),
        networks(management_cidr=IPv4Network("172.28.0.0/30")),
        networks(management_cidr=IPv4Network("172.28.0.0/32")),
        networks(management_cidr=IPv4Network("192.0.2.0/24")),
        kubernetes(runtime="docker; rm -rf /"),
        kubernetes(cni=HOSTILE),
        kubernetes(chosen_proxy_mode=HOSTILE),
        kubernetes(pod_cidr=IPv4Network("127.0.0.0/16")),
        kubernetes(pod_cidr=IPv4Network("10.96.0.0/16")),
        kubernetes(pod_cidr=IPv4Network("10.244.0.0/30")),
        kubernetes(service_cidr=IPv4Network("0.0.0.0/12")),
        kubernetes(service_cidr=IPv4Network("10.0.0.0/8")),
        version("version", "1.35"),
        version("version", "1.35.4-1"),
        *(version(name, "1.35.4\x1b[2J") for name in ("version", "etcd", "coredns", "pause", "flannel")),
        version("version", "latest"),
        balancer(port=22),
        balancer(vrid=0),
        balancer(vrid=256),
        balancer(vip=IPv4Address("192.168.56.1")),
        balancer(vip=IPv4Address("8.8.8.8")),
        balancer(nodes=()),
        balancer(nodes=("w1",)),
        balancer(nodes=("cp1", "cp1")),
        balancer(nodes=("cp1\n}",)),
    ],
)
def test_what_klab_would_not_have_decided(change: Callable[[Plan], Plan]) -> None:
    problems = plan_problems(change(plan_of("ha-3m2w")))
    assert problems
    assert all(visible(problem) == problem and len(problem) < 400 for problem in problems)


def test_names_that_the_inventory_and_etc_hosts_have_are_reserved() -> None:
    """No name has a "_", so the groups with one cannot be met."""
    groups = {"all", "ungrouped", *GROUPS, group_name("x")}
    assert {name for name in groups if "_" not in name} == RESERVED_GROUPS
    for name in RESERVED_GROUPS | RESERVED_HOSTNAMES:
        with pytest.raises(ValueError, match=r"reserved|group of the Ansible"):
            check_node_name(name)


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just(10**400))


@given(st.data())
def test_any_value_anywhere_in_a_plan_is_read_or_refused(data: st.DataObject) -> None:
    tree = json.loads(to_json(plan_of("ha-3m2w")))
    at: Any = tree
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], (dict, list)) or not at[key] or data.draw(st.booleans()):
            at[key] = data.draw(LEAVES)
            break
        at = at[key]
    try:
        plan = from_json(json.dumps(tree))
    except LabError:
        return
    for problem in plan_problems(plan):
        assert visible(problem) == problem
