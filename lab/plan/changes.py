"""A lab's plan with nodes added or taken away. Pure, like the plan.

What a node is called, where it is and which identity it has follows the rules of `lab.plan.model`:
a node that is taken away and added again under its name is the same node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from lab.errors import Conflict, Remedy, UsageError
from lab.plan.decide import NAME_PREFIX, free_address, mac_address, node_uuid
from lab.plan.model import Node, Plan
from lab.plan.versions import with_version
from lab.scenario.kinds import check_node_name
from lab.scenario.model import Role
from lab.scenario.rules import MOST_CONTROL_PLANES, no_better, too_many


def with_node(plan: Plan, role: Role, name: str | None = None) -> Plan:
    """The plan with one node more.

    Args:
        plan: the lab.
        role: the new node's role; it gets the size of the last of that role.
        name: its name; the first free one of its role (w3) when left out.

    Raises:
        Conflict: the lab has a node of that name.
        UsageError: the name is invalid, the network is full, or the lab has no virtual IP for
            a second control plane.
    """
    taken = {node.name for node in plan.nodes}
    if name is None:
        name = next(found for i in range(1, len(taken) + 2) if (found := f"{NAME_PREFIX[role]}{i}") not in taken)
    try:
        check_node_name(name)
    except ValueError as error:
        raise UsageError(f"the node cannot have this name: {error}", hint="such as w3") from None
    if name in taken:
        raise Conflict(f"lab {plan.name!r} has a node called {name!r} already", hint=Remedy("node replace", node=name))
    if role == "control-plane":
        _refuse_control_plane(plan)
    same = [node for node in plan.nodes if node.role == role] or list(plan.nodes)
    size = same[-1]
    node = Node(
        name=name,
        role=role,
        cpus=size.cpus,
        memory=size.memory,
        disk=size.disk,
        address=_address(plan, role),
        uuid=node_uuid(plan.name, plan.seat, name),
        mac=_mac(plan, name, "lab"),
        management_mac=_mac(plan, name, "management"),
    )
    planes = [n for n in plan.nodes if n.is_control_plane]
    workers = [n for n in plan.nodes if not n.is_control_plane]
    (planes if node.is_control_plane else workers).append(node)
    return _balanced(replace(plan, nodes=(*planes, *workers)), everywhere=_everywhere(plan))


def without_nodes(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with some nodes less.

    Raises:
        NotFound: the lab has no such node.
        UsageError: no control plane would be left.
    """
    for name in names:
        plan.known(name)
    left = tuple(node for node in plan.nodes if node.name not in names)
    if not any(node.is_control_plane for node in left):
        raise UsageError(
            "a cluster needs a control plane", hint=(Remedy("destroy", lab=plan.name), " removes the whole lab")
        )
    return _balanced(replace(plan, nodes=left), everywhere=_everywhere(plan))


def as_changed(there: Plan, wanted: Plan) -> Plan:
    """The plan of a lab that is there, if only scaling and upgrades have led away from its scenario; else `wanted`."""
    return there if same_but_for_nodes(there, with_version(wanted, there.kubernetes.versions)) else wanted


def same_but_for_nodes(there: Plan, wanted: Plan) -> bool:
    """Whether scaling could lead from one plan to the other; what the scenario is called does not matter."""
    return replace(there, nodes=wanted.nodes, load_balancer=wanted.load_balancer, scenario=wanted.scenario) == wanted


def surplus(plan: Plan, role: Role, count: int) -> list[str]:
    """The nodes of a role that go when `count` stay: the last ones, the very last first."""
    names = [node.name for node in plan.nodes if node.role == role]
    return names[count:][::-1]


def refuse_even(count: int, *, allow: bool) -> None:
    """Make sure that a number of control planes is odd.

    Raises:
        UsageError: it is even, and `allow` is not set.
    """
    if count > 0 and count % 2 == 0 and not allow:
        raise UsageError(no_better(count), hint=f"use {count - 1} or {count + 1}, or add --allow-even")


def _refuse_control_plane(plan: Plan) -> None:
    if plan.load_balancer is None:
        raise UsageError(
            f"lab {plan.name!r} was made with one control plane and has no virtual IP; its certificates and "
            "kubeconfigs lead to that one control plane",
            hint=(
                "make a lab that has one: ",
                Remedy("create", options=("ha-3m2w",)),
                ", or topology.control_planes: 3 in the scenario",
            ),
        )
    if len(plan.control_planes) >= MOST_CONTROL_PLANES:
        raise UsageError(
            too_many(len(plan.control_planes) + 1),
            hint=(Remedy("node add", options=("--role", "worker")), " adds a worker"),
        )


def _everywhere(plan: Plan) -> bool:
    return plan.load_balancer is not None and len(plan.load_balancer.nodes) == len(plan.control_planes)


def _balanced(plan: Plan, *, everywhere: bool) -> Plan:
    """The load balancers stand on all control planes, or on the first two, as before."""
    if plan.load_balancer is None:
        return plan
    names = tuple(node.name for node in plan.control_planes)
    return replace(plan, load_balancer=replace(plan.load_balancer, nodes=names if everywhere else names[:2]))


def _address(plan: Plan, role: Role) -> IPv4Address:
    taken = {node.address for node in plan.nodes}
    if plan.load_balancer is not None:
        taken.add(plan.load_balancer.vip)
    return free_address(plan.networks.cidr, role, taken)


def _mac(plan: Plan, name: str, network: str) -> str:
    taken = {mac for node in plan.nodes for mac in (node.mac, node.management_mac)}
    return mac_address(plan.name, plan.seat, name, network, taken)
