"""Add, remove and replace the nodes of a lab, or let one leave its cluster and join again.

Each function takes a lab that `lab.app.labs` has entered, and may take a time limit in seconds and a listener. An even
number of control planes is refused without `allow_even`. Each raises what the act of `lab.cluster.acts.scale` raises,
HostError where this machine has no room for a new node, and `Interrupted` on Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.app.interruption import interruptible
from lab.boxes.kubectl import kubectl_for
from lab.boxes.manifest import Box
from lab.boxes.store import box_of, find_box, vagrant_box
from lab.cluster.acts import node_reset
from lab.cluster.acts import scale as act
from lab.cluster.acts.scale import Change, Changed
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.errors import BoxError, HostError, Remedy
from lab.host.capacity import check_room, host_facts
from lab.host.local import LocalHost
from lab.machines.providers import provider_named
from lab.plan.model import Node, Plan
from lab.scenario.model import Role
from lab.store import Record


def scale(
    lab: Lab,
    *,
    workers: int | None = None,
    control_planes: int | None = None,
    allow_even: bool = False,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> Changed:
    """Give the lab so many nodes of a role; None leaves a role as it is. The last nodes of a role go first."""

    def act_on(change: Change) -> Changed:
        return act.scale(change, workers=workers, control_planes=control_planes)

    return _changed(lab.watched_by(listener, timeout), act_on, allow_even=allow_even)


def add_node(
    lab: Lab,
    role: Role = "worker",
    name: str | None = None,
    *,
    allow_even: bool = False,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> Changed:
    """Add a node; without a name it gets the first free one of its role."""
    return _changed(
        lab.watched_by(listener, timeout), lambda change: act.add_node(change, role, name), allow_even=allow_even
    )


def remove_node(
    lab: Lab,
    name: str,
    *,
    allow_even: bool = False,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> Changed:
    """Drain a node, take it out of etcd and the cluster, and remove its machine."""
    return _changed(
        lab.watched_by(listener, timeout), lambda change: act.remove_node(change, name), allow_even=allow_even
    )


def replace_node(lab: Lab, name: str, *, timeout: float | None = None, listener: Listener | None = None) -> Changed:
    """Recreate a node, dead or alive, under the same name and address."""
    return _changed(lab.watched_by(listener, timeout), lambda change: act.replace_node(change, name))


def reset_node(lab: Lab, name: str, *, timeout: float | None = None, listener: Listener | None = None) -> Changed:
    """Let a node leave the cluster and clean it up; its machine lives on, and the node can join again."""
    return _changed(lab.watched_by(listener, timeout), lambda change: node_reset.reset_node(change, name))


def join_node(lab: Lab, name: str, *, timeout: float | None = None, listener: Listener | None = None) -> Changed:
    """Let a node that has left the cluster join it again, and wait until it is Ready."""
    return _changed(lab.watched_by(listener, timeout), lambda change: node_reset.join_node(change, name))


def _changed(lab: Lab, act_on: Callable[[Change], Changed], *, allow_even: bool = False) -> Changed:
    record = lab.record
    box = _box(lab, record)
    disks = {node.disk for node in lab.plan.nodes}
    with interruptible(
        "stopped half-way; the lab still runs",
        ("run the same command again to continue; ", Remedy("status"), " shows the lab"),
    ):
        return act_on(
            Change(
                lab=lab,
                box=vagrant_box(lab.home, box, record.provider, disks) if box else None,
                kubectl=kubectl_for(lab.home, record.box, lab.plan.kubernetes.version),
                fits=lambda plan, nodes: _refuse_what_does_not_fit(lab, plan, nodes),
                allow_even=allow_even,
            )
        )


def _box(lab: Lab, record: Record) -> Box | None:
    """The box the lab was made from, or one that fits; None if no box does (nodes can still leave).

    After an upgrade the lab's first box has another version than a new node has to have.
    """
    version = lab.plan.box_kubernetes
    for folder in record.boxes:
        if (box := box_of(lab.home, folder)) and box.kubernetes == version:
            return box
    try:
        return find_box(lab.home, lab.plan.box, version)
    except BoxError:
        return None


def _refuse_what_does_not_fit(lab: Lab, plan: Plan, nodes: Sequence[Node]) -> None:
    disks = provider_named(lab.record.provider).disk_room(lab.home, plan.pool)
    problems = check_room(nodes, host_facts(LocalHost(lab.home), disks))
    if problems:
        names = ", ".join(n.name for n in nodes)
        raise HostError(
            f"{names} would not fit on this machine beside what runs here",
            details=problems,
            hint=(Remedy("list"), f" shows what else runs here; {plan.name} is as it was"),
        )
