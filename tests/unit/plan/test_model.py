"""Deciding: the same input gives the same plan, and nothing in a plan collides."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

import pytest

from lab.errors import LabError, NotFound, UsageError
from lab.plan.decide import decide
from lab.plan.file import FORMAT, from_json, to_data, to_json
from lab.plan.model import Plan
from lab.scenario.parser import parse_scenario

HEAD = "version: 1\nname: test\n"


@pytest.fixture
def plan_of(catalog):
    def make(rest: str, **options) -> Plan:
        return decide(parse_scenario(HEAD + rest, catalog), catalog, **options)

    return make


def test_names_and_addresses_by_role(plan_of) -> None:
    plan = plan_of("topology: {control_planes: 3, workers: 2}")
    assert {n.name: str(n.address) for n in plan.nodes} == {
        "cp1": "192.168.56.11",
        "cp2": "192.168.56.12",
        "cp3": "192.168.56.13",
        "w1": "192.168.56.21",
        "w2": "192.168.56.22",
    }
    assert plan.api_endpoint == (IPv4Address("192.168.56.10"), 8443)
    assert plan.load_balancer.nodes == ("cp1", "cp2", "cp3")


def test_a_node_that_a_person_names_is_found_or_the_others_are_told(plan_of) -> None:
    plan = plan_of("topology: {workers: 1}")
    assert plan.known("w1") is plan.nodes[1]
    with pytest.raises(NotFound, match="lab 'test' has no node called 'w9'") as caught:
        plan.known("w9")
    assert caught.value.hint == "its nodes: cp1, w1"


def test_one_control_plane_needs_no_virtual_ip(plan_of) -> None:
    plan = plan_of("topology: {workers: 1}")
    assert plan.load_balancer is None
    assert plan.api_endpoint == (plan.control_planes[0].address, 6443)


def test_only_the_first_two_balance(plan_of) -> None:
    plan = plan_of("topology: {control_planes: 3, load_balancers: first-two}")
    assert plan.load_balancer.nodes == ("cp1", "cp2")


def test_kube_proxy_begins_in_the_versions_mode_or_the_chosen_one(plan_of) -> None:
    usual, chosen = plan_of(""), plan_of("kubernetes: {proxy_mode: iptables}")
    old = plan_of('kubernetes: {version: "1.28.0"}')
    assert [each.kubernetes.proxy_mode for each in (usual, chosen, old)] == ["nftables", "iptables", "iptables"]
    assert "proxy_mode" not in to_json(usual), "as klab wrote plans before there was the key"
    for plan in (usual, chosen):
        assert from_json(to_json(plan)) == plan
    assert usual != chosen


def test_equal_input_gives_an_equal_plan_and_equal_bytes(plan_of) -> None:
    assert to_json(plan_of("topology: {workers: 2}")) == to_json(plan_of("topology: {workers: 2}"))


def test_a_seat_moves_the_network_and_everything_in_it(plan_of) -> None:
    rest = "network: {cidr: 192.168.56.0/27}\ntopology: {control_planes: 3, workers: 1, vip: 192.168.56.30}"
    zero, four = plan_of(rest), plan_of(rest, seat=4)
    assert four.networks.cidr == IPv4Network("192.168.56.128/27")
    assert four.load_balancer.vip == IPv4Address("192.168.56.158")
    for one, other in zip(zero.nodes, four.nodes, strict=True):
        assert int(other.address) - int(one.address) == 4 * 32
        assert {one.uuid, one.mac, one.management_mac}.isdisjoint({other.uuid, other.mac, other.management_mac})


def test_sixty_four_small_seats_share_nothing(plan_of) -> None:
    plans = [plan_of("network: {cidr: 192.168.56.0/27}\ntopology: {workers: 2}", seat=s) for s in range(64)]
    addresses = [n.address for p in plans for n in p.nodes]
    uuids = [n.uuid for p in plans for n in p.nodes]
    assert len(set(addresses)) == len(addresses)
    assert len(set(uuids)) == len(uuids)
    assert len({p.networks.cidr for p in plans}) == 64


@pytest.mark.parametrize(
    ("rest", "seat", "words"),
    [
        ("", 8, "has no network"),
        ("", -1, "below zero"),
        ("", 10**9, "has no network"),
        ("network: {cidr: 10.243.0.0/16}", 1, "overlaps 10.244.0.0/16"),
    ],
)
def test_a_seat_without_a_network_is_refused(plan_of, rest: str, seat: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan_of(rest, seat=seat)


@pytest.mark.parametrize("name", ["", "Big", "a b", "-a", "../x", "localhost", "x" * 41])
def test_a_lab_name_that_is_none_is_refused(plan_of, name: str) -> None:
    with pytest.raises(UsageError, match="cannot have this name"):
        plan_of("", name=name)


def test_another_name_is_another_lab(plan_of) -> None:
    one, other = plan_of("", name="a"), plan_of("", name="b")
    assert one.nodes[0].uuid != other.nodes[0].uuid
    assert one.networks.name == "klab-a"
    assert one.scenario == other.scenario == "test"


def test_chosen_addresses_go_round_written_ones(plan_of) -> None:
    plan = plan_of(
        "topology:\n  nodes:\n"
        "  - {name: a, role: control-plane, address: 192.168.56.21}\n"
        "  - {name: b, role: control-plane, address: 192.168.56.10}\n"
        "  - {name: c, role: control-plane}\n"
        "  - {name: d}\n"
    )
    taken = [n.address for n in plan.nodes] + [plan.load_balancer.vip]
    assert len(set(taken)) == 5
    assert plan.node("d").address == IPv4Address("192.168.56.22")


def test_the_smallest_network_is_filled_to_the_last_address(plan_of) -> None:
    plan = plan_of("network: {cidr: 192.168.56.0/28}\ntopology: {control_planes: 3, workers: 9}")
    used = {n.address for n in plan.nodes} | {plan.load_balancer.vip, plan.networks.gateway}
    assert used == set(plan.networks.cidr.hosts()) - ({plan.networks.cidr[-2]} - used)


def test_in_the_largest_lab_nothing_is_there_twice(plan_of) -> None:
    plan = plan_of("topology: {control_planes: 7, workers: 50}")
    macs = [mac for n in plan.nodes for mac in (n.mac, n.management_mac)]
    assert len(set(macs)) == len(macs) == 114
    assert len({n.address for n in plan.nodes}) == 57


def test_equal_macs_in_one_lab_move_on(plan_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.plan.decide._digest", lambda *parts: bytes([len(parts)] * 32))
    macs = [mac for n in plan_of("topology: {workers: 0}").nodes for mac in (n.mac, n.management_mac)]
    assert len(set(macs)) == 2


def test_vagrants_network_keeps_clear_of_the_labs(plan_of) -> None:
    free = IPv4Network("172.31.0.0/16")
    rest = "kubernetes: {service_cidr: 172.28.0.0/15, pod_cidr: 172.30.0.0/16}"
    for seat in range(8):
        assert plan_of(rest, seat=seat).networks.management_cidr.subnet_of(free)


def test_totals(plan_of) -> None:
    plan = plan_of("topology: {workers: 2}\ncpus: 2\nmemory: 3Gi\ndisk: 10")
    assert (plan.cpus, plan.memory, plan.disk) == (6, 9216, 30)


def test_a_plan_survives_its_file(plan_of) -> None:
    plan = plan_of("topology: {control_planes: 3}\nmirrors: {docker.io: 'http://m:5000'}\naddons: [a.yaml]")
    assert from_json(to_json(plan)) == plan


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": 1}', "[" * 100_000])
def test_a_damaged_plan_is_said_to_be_damaged(text: str) -> None:
    with pytest.raises(LabError, match="damaged"):
        from_json(text)


def test_any_value_of_the_wrong_kind_is_damage(plan_of) -> None:
    data = to_data(plan_of("topology: {control_planes: 3}"))
    for key in data.keys() - {"format"}:
        # No place of a plan holds an object() of such a shape.
        with pytest.raises(LabError, match="damaged"):
            from_json(json.dumps({**data, key: {"no": ["such", 1.5]}}))


@pytest.mark.parametrize("key", ["flannel", "flannel_cni"])
def test_a_plan_without_a_version_of_its_pod_network_is_damaged(plan_of, key: str) -> None:
    data = to_data(plan_of(""))
    del data["kubernetes"]["versions"][key]
    with pytest.raises(LabError, match="plan is damaged") as found:
        from_json(json.dumps(data))
    assert f"lacks {key}, which flannel needs" in str(found.value)
    data["kubernetes"]["cni"] = "none"
    assert from_json(json.dumps(data)).kubernetes.cni == "none"


def test_a_plan_of_another_format_is_said_to_be_one(plan_of) -> None:
    text = to_json(plan_of("")).replace(f'"format": {FORMAT}', '"format": 99')
    with pytest.raises(LabError, match="another version of klab"):
        from_json(text)
