from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lab.host import capacity
from lab.host.capacity import (
    DiskRoom,
    HostFacts,
    LabNetworks,
    Route,
    parse_gateways,
    parse_resolvers,
    parse_routes,
    warnings,
)
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology

# In the shape of what `ip -json -4 route` of iproute2 6.1 prints; the addresses are examples.
ROUTES = json.dumps(
    [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "flags": []},
        {"dst": "192.0.2.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link", "prefsrc": "192.0.2.2"},
        {"dst": "192.168.56.0/21", "dev": "vboxnet0", "protocol": "kernel", "scope": "link"},
        {"dst": "198.51.100.7", "gateway": "192.0.2.1", "dev": "wg0"},
    ]
)
ROOMY = HostFacts(memory=16384, cpus=4, disks=DiskRoom(Path("/srv"), 100 << 30, "a pool elsewhere"), routes=())


@pytest.fixture
def plan() -> Plan:
    scenario = Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=2))
    return decide(scenario, load_catalog())


def check_fits(plan: Plan, facts: HostFacts, *interfaces: str) -> list[str]:
    return capacity.check_fits(plan, facts, replace(LabNetworks.bridged(plan), interfaces=interfaces))


def test_a_roomy_host_fits(plan: Plan) -> None:
    assert check_fits(plan, ROOMY) == []
    assert warnings(plan, ROOMY) == []


def test_too_little_memory_is_refused_with_numbers(plan: Plan) -> None:
    assert check_fits(plan, replace(ROOMY, memory=3174)) == ["needs 6.2 GiB RAM, 3.1 GiB are free"]


def test_too_little_disk_is_refused_with_the_place(plan: Plan) -> None:
    (problem,) = check_fits(plan, replace(ROOMY, disks=replace(ROOMY.disks, free=5 << 28)))
    assert problem == "needs 6.0 GiB disk to begin with, 1.2 GiB are free in /srv; a pool elsewhere"


def test_cpus_may_be_shared_but_no_node_may_exceed_the_host(plan: Plan) -> None:
    assert check_fits(plan, replace(ROOMY, cpus=2)) == []
    assert warnings(plan, replace(ROOMY, cpus=2))
    assert "cp1 has 2 CPUs, this host has 1" in check_fits(plan, replace(ROOMY, cpus=1))


def test_an_overlapping_route_is_named(plan: Plan) -> None:
    facts = replace(ROOMY, routes=parse_routes(ROUTES))
    (problem,) = check_fits(plan, facts)
    assert "192.168.56.0/24" in problem
    assert "192.168.56.0/21 through vboxnet0" in problem


RESOLV_CONF = (
    "# made by hand\nsearch example.org\nnameserver 192.168.56.53\nnameserver 127.0.0.53\nnameserver ::1\nnameserver\n"
)


def test_what_the_host_needs_is_not_in_the_lab(plan: Plan) -> None:
    needed = (*parse_gateways(ROUTES), *parse_resolvers(RESOLV_CONF))
    assert [str(address) for address in needed] == ["192.0.2.1", "192.168.56.53"]
    (problem,) = check_fits(plan, replace(ROOMY, needed=needed))
    assert "192.168.56.0/24 holds 192.168.56.53, which this machine needs as its gateway or DNS server" in problem


def test_the_labs_own_bridge_does_not_count(plan: Plan) -> None:
    facts = replace(ROOMY, routes=(Route(IPv4Network("192.168.56.0/24"), "virbr3"),))
    assert check_fits(plan, facts)
    assert check_fits(plan, facts, "virbr3") == []


def test_only_what_the_provider_takes_is_looked_at(plan: Plan) -> None:
    management = Route(plan.networks.management_cidr, "eth1")
    assert check_fits(plan, replace(ROOMY, routes=(management,)))
    alone = LabNetworks({"network": plan.networks.cidr})
    assert capacity.check_fits(plan, replace(ROOMY, routes=(management,)), alone) == []


def test_routes_without_a_prefix_are_single_addresses() -> None:
    assert Route(IPv4Network("198.51.100.7/32"), "wg0") in parse_routes(ROUTES)
    assert parse_routes("") == ()
