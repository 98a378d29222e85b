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
)
from lab.plan.decide import decide
from lab.plan.foreign import plan_problems
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import LabNetwork, Scenario, Topology

# In the shape of what `ip -json -4 route` of iproute2 6.1 prints; the addresses are examples.
ROUTES = json.dumps(
    [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0", "flags": []},
        {"dst": "192.0.2.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link", "prefsrc": "192.0.2.2"},
        {"dst": "192.168.56.0/21", "dev": "br0", "protocol": "kernel", "scope": "link"},
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


def warnings(plan: Plan, facts: HostFacts) -> list[str]:
    return capacity.warnings(plan, facts, LabNetworks.bridged(plan))


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
    assert "192.168.56.0/21 through br0" in problem


def routed(*entries: dict[str, object]) -> HostFacts:
    way = {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"}
    return replace(ROOMY, routes=parse_routes(json.dumps([way, *entries])))


def through(dst: str, dev: str, **others: object) -> dict[str, object]:
    return {"dst": dst, "dev": dev, **others}


def connected(dst: str, dev: str) -> dict[str, object]:
    return through(dst, dev, protocol="kernel", scope="link")


# A VPN's two halves of the Internet, in the way of redirect-gateway def1 of OpenVPN, and another's quarters.
EVERYWHERE = [
    [through("0.0.0.0/1", "tun0", gateway="10.8.0.1"), through("128.0.0.0/1", "tun0", gateway="10.8.0.1")],
    [through(f"{first}.0.0.0/2", "wg0", scope="link") for first in (0, 64, 128, 192)],
]


@pytest.mark.parametrize("routes", EVERYWHERE)
def test_a_route_that_leads_everywhere_is_in_no_labs_way(plan: Plan, routes: list[dict[str, object]]) -> None:
    assert check_fits(plan, routed(*routes)) == []
    assert warnings(plan, routed(*routes)) == []


def test_a_company_that_routes_private_ranges_is_warned_about(plan: Plan) -> None:
    company = routed(
        through("172.16.0.0/12", "tun0", gateway="10.8.0.1"), {"type": "blackhole", "dst": "192.168.0.0/16"}
    )
    assert check_fits(plan, company) == []
    (felt,) = warnings(plan, company)
    assert f"{plan.networks.management_cidr} lies within the host's route to 172.16.0.0/12 through tun0" in felt
    assert "network.management" in felt


@pytest.mark.parametrize(
    "route",
    [
        through("192.168.56.0/24", "tun0", gateway="10.8.0.1"),
        through("192.168.56.128/25", "tun0"),
        through("192.168.56.77", "tun0", gateway="10.8.0.1"),
        {"type": "blackhole", "dst": "192.168.56.0/26"},
        {"type": "unreachable", "dst": "192.168.56.0/24", "dev": "lo"},
        connected("192.168.56.0/24", "vboxnet0"),
        connected("192.168.0.0/16", "eth0"),
        {"dst": "192.168.56.0/24", "nexthops": [{"dev": "tun0"}, {"dev": "tun1"}]},
    ],
)
def test_what_is_in_the_way_is_refused_with_what_avoids_it(plan: Plan, route: dict[str, object]) -> None:
    (problem,) = check_fits(plan, routed(route))
    assert str(route["dst"]).partition("/")[0] in problem
    assert problem.endswith("another --seat or network.cidr avoids it")
    dropped = "type" in route
    assert ("drops packets" in problem) is dropped
    assert ("through" in problem) is not dropped
    assert warnings(plan, routed(route)) == []


def test_the_management_network_has_a_key_of_its_own() -> None:
    """Docker takes 172.28.0.0/16 for its twelfth network."""
    docker = routed(*(connected(f"172.{n}.0.0/16", f"br-{n}") for n in range(28, 32)))
    there = Scenario(version=1, name="demo")
    (problem,) = check_fits(decide(there, load_catalog()), docker)
    assert problem.endswith("another --seat or network.management avoids it")
    elsewhere = replace(there, network=LabNetwork(management=IPv4Network("10.77.0.0/16")))
    moved = decide(elsewhere, load_catalog())
    assert moved.networks.management_cidr.subnet_of(IPv4Network("10.77.0.0/16"))
    assert check_fits(moved, docker) == []
    assert plan_problems(moved) == [], "a bundle may have it, too"


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
