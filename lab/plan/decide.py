"""Decide a plan: turn a scenario into one. Pure; the same input gives the same plan.

    >>> plan = decide(scenario, catalog)  # seat 0
    >>> [node.name for node in plan.nodes]
    ['cp1', 'w1', 'w2']

Whatever must be unique is derived, never drawn: UUIDs by RFC 4122 version 5 and MAC
addresses by SHA-256, both from lab name, seat and node name. Two students with the same
seat and scenario therefore hold the same lab.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from lab.components.cni import network
from lab.components.kubernetes.versions import KubernetesVersion
from lab.errors import UsageError
from lab.plan.model import LOAD_BALANCER_PORT, KubernetesPlan, LoadBalancer, Networks, Node, Plan
from lab.plan.names import management_network_name, network_name
from lab.plan.needs import refuse_unfit_addons
from lab.scenario.catalog import Catalog
from lab.scenario.kinds import check_name, lab_name
from lab.scenario.model import SEAT_RANGE, NodeSpec, Role, Scenario
from lab.scenario.rules import MANAGEMENT_PREFIX

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "klab")
MAC_PREFIX = "52:54:00"  # locally administered, by custom QEMU's and KVM's
VIP_OFFSET = 10
NAME_PREFIX: dict[Role, str] = {"control-plane": "cp", "worker": "w"}
FIRST_OFFSET: dict[Role, int] = {"control-plane": 11, "worker": 21}
SMALL_NETWORK = 64  # below this many addresses the friendly offsets above do not fit


def decide(scenario: Scenario, catalog: Catalog, *, name: str | None = None, seat: int = 0) -> Plan:
    """Turn a scenario into a plan.

    Args:
        scenario: what the person wrote.
        catalog: where component versions come from.
        name: the lab's name; the scenario's own when left out, with "-" for each dot.
        seat: the student's number, 0 and up.

    Raises:
        UsageError: the name is invalid, or the seat's network would leave the range that
            VirtualBox allows or run into the pods' or services' range.
        ScenarioError: an add-on does not fit.
    """
    lab = lab_name(scenario.name) if name is None else _checked(name)
    cidr = _seat_network(scenario, seat)
    specs = _specs(scenario)
    planes = [n.name for n in specs if n.role == "control-plane"]
    shift = int(cidr.network_address) - int(scenario.network.cidr.network_address)
    vip = _vip(scenario, cidr, shift, specs) if len(planes) > 1 else None
    addresses = _addresses(specs, cidr, shift, vip)
    plan = Plan(
        name=lab,
        scenario=scenario.name,
        seat=seat,
        box=scenario.box,
        bootstrap=scenario.bootstrap,
        nodes=_nodes(scenario, specs, lab, seat, addresses),
        networks=Networks(
            name=network_name(lab),
            cidr=cidr,
            gateway=cidr[1],
            management_name=management_network_name(lab),
            management_cidr=_management_network(scenario, cidr, lab, seat),
        ),
        kubernetes=KubernetesPlan(
            versions=_versions(scenario, catalog),
            runtime=scenario.kubernetes.runtime,
            cni=scenario.kubernetes.cni,
            pod_cidr=scenario.kubernetes.pod_cidr,
            service_cidr=scenario.kubernetes.service_cidr,
            chosen_proxy_mode=scenario.kubernetes.proxy_mode,
        ),
        load_balancer=None
        if vip is None
        else LoadBalancer(
            vip=vip,
            port=LOAD_BALANCER_PORT,
            vrid=_digest(lab, seat, "vrid")[0] % 255 + 1,
            nodes=tuple(planes[:2] if scenario.topology.load_balancers == "first-two" else planes),
        ),
        mirrors=tuple(sorted((registry, each.url) for registry, each in scenario.mirrors.items())),
        addons=scenario.addons,
        cpu_model=scenario.provider.libvirt.cpu_model,
        pool=scenario.provider.libvirt.pool,
        linked_clone=scenario.provider.virtualbox.linked_clone,
        cloud_image=scenario.box in catalog.images,
        images=tuple(dict.fromkeys(scenario.images)),
    )
    refuse_unfit_addons(plan, plan.named_addons)
    return plan


def _versions(scenario: Scenario, catalog: Catalog) -> KubernetesVersion:
    """What goes with the scenario's Kubernetes; of a pod network that no box holds, what klab's manifest is of."""
    found = catalog.kubernetes[catalog.full_version(scenario.kubernetes.version)]
    known = dict(found.components)
    more = {k: v for k, v in network(scenario.kubernetes.cni).versions.items() if k not in known}
    return replace(found, components=(*found.components, *more.items())) if more else found


def _checked(name: str) -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise UsageError(f"the lab cannot have this name: {error}", hint="such as --name lesson-3") from None


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("\0".join(str(p) for p in parts).encode()).digest()


def _seat_network(scenario: Scenario, seat: int) -> IPv4Network:
    first = scenario.network.cidr
    if seat == 0:
        return first
    if seat < 0:
        raise UsageError(f"seat {seat} is below zero", hint="seats count from 0")
    start = int(first.network_address) + seat * first.num_addresses
    network = IPv4Network((start, first.prefixlen)) if start < 2**32 else None
    if network is None or (first.subnet_of(SEAT_RANGE) and not network.subnet_of(SEAT_RANGE)):
        raise UsageError(
            f"seat {seat} has no network: {first} moved {seat} times leaves {SEAT_RANGE}",
            hint="a smaller network.cidr, such as 192.168.56.0/27, makes room for 64 seats",
        )
    for other in (scenario.kubernetes.pod_cidr, scenario.kubernetes.service_cidr):
        if network.overlaps(other):
            raise UsageError(
                f"seat {seat} has no network: {first} moved {seat} times is {network} and overlaps {other}",
                hint="choose network.cidr, pod_cidr and service_cidr further apart",
            )
    return network


def _specs(scenario: Scenario) -> tuple[NodeSpec, ...]:
    if scenario.topology.nodes is not None:
        return scenario.topology.nodes
    count: dict[Role, int] = {"control-plane": 0, "worker": 0}
    specs = []
    for role in scenario.topology.roles:
        count[role] += 1
        specs.append(NodeSpec(name=f"{NAME_PREFIX[role]}{count[role]}", role=role))
    return tuple(specs)


def _moved(address: IPv4Address, shift: int) -> IPv4Address:
    """An address written for seat 0, in the network of this seat."""
    return IPv4Address(int(address) + shift)


def _vip(scenario: Scenario, cidr: IPv4Network, shift: int, specs: tuple[NodeSpec, ...]) -> IPv4Address:
    if scenario.topology.vip is not None:
        return _moved(scenario.topology.vip, shift)
    taken = {_moved(s.address, shift) for s in specs if s.address is not None}
    return _free(cidr, VIP_OFFSET if cidr.num_addresses >= SMALL_NETWORK else 2, taken)


def _addresses(
    specs: tuple[NodeSpec, ...], cidr: IPv4Network, shift: int, vip: IPv4Address | None
) -> dict[str, IPv4Address]:
    chosen = {s.name: _moved(s.address, shift) for s in specs if s.address is not None}
    taken = {*chosen.values()} | ({vip} if vip else set())
    for spec in specs:
        if spec.name in chosen:
            continue
        chosen[spec.name] = free_address(cidr, spec.role, taken)
        taken.add(chosen[spec.name])
    return chosen


def free_address(cidr: IPv4Network, role: Role, taken: set[IPv4Address]) -> IPv4Address:
    """The next address for a node of that role.

    Raises:
        UsageError: the network is full.
    """
    return _free(cidr, FIRST_OFFSET[role] if cidr.num_addresses >= SMALL_NETWORK else 2, taken)


def node_uuid(lab: str, seat: int, node: str) -> str:
    """A node's UUID: RFC 4122 version 5, from lab name, seat and node name."""
    return str(uuid.uuid5(NAMESPACE, f"{lab}/{seat}/{node}"))


def mac_address(lab: str, seat: int, node: str, network: str, taken: set[str]) -> str:
    """A node's MAC address in a network (`lab` or `management`), from the digest of its names.

    Three bytes are free: in a large lab two may be equal, and then the second moves on.
    """
    for attempt in range(len(taken) + 1):
        tail = _digest(lab, seat, node, network, *([attempt] if attempt else []))[:3]
        found = ":".join((MAC_PREFIX, *(f"{byte:02x}" for byte in tail)))
        if found not in taken:
            break
    return found


def _free(cidr: IPv4Network, offset: int, taken: set[IPv4Address]) -> IPv4Address:
    """The first free host address from `offset` on, going round to 2 at the end."""
    last = cidr.num_addresses - 2
    for i in (*range(offset, last + 1), *range(2, offset)):
        if cidr[i] not in taken:
            return cidr[i]
    raise UsageError(f"{cidr} has no free address left", hint="choose a larger network.cidr")


def _management_network(scenario: Scenario, cidr: IPv4Network, lab: str, seat: int) -> IPv4Network:
    """A /24 of the management range, by lab and seat, that none of the lab's own ranges overlaps."""
    within = scenario.network.management
    size = 2 ** (32 - MANAGEMENT_PREFIX)
    count = within.num_addresses // size
    first = int.from_bytes(_digest(lab, seat, "management")[:4]) % count
    taken = (cidr, scenario.kubernetes.pod_cidr, scenario.kubernetes.service_cidr)
    for i in range(count):
        network = IPv4Network((int(within.network_address) + (first + i) % count * size, MANAGEMENT_PREFIX))
        if not any(network.overlaps(other) for other in taken):
            return network
    raise UsageError(
        f"no /{MANAGEMENT_PREFIX} is free in {within} for Vagrant's own network",
        hint="choose another network.management",
    )


def _nodes(
    scenario: Scenario, specs: tuple[NodeSpec, ...], lab: str, seat: int, addresses: dict[str, IPv4Address]
) -> tuple[Node, ...]:
    macs: set[str] = set()

    def mac(node: str, network: str) -> str:
        found = mac_address(lab, seat, node, network, macs)
        macs.add(found)
        return found

    return tuple(
        Node(
            name=spec.name,
            role=spec.role,
            cpus=spec.cpus or scenario.cpus,
            memory=spec.memory or scenario.memory,
            disk=spec.disk or scenario.disk,
            address=addresses[spec.name],
            uuid=node_uuid(lab, seat, spec.name),
            mac=mac(spec.name, "lab"),
            management_mac=mac(spec.name, "management"),
        )
        for spec in specs
    )
