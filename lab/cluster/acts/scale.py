"""Let a lab grow and shrink: how many nodes there should be, and which join or leave for that (`node_changes`)."""

from __future__ import annotations

from lab.cluster.acts.node_changes import Change, Changed, NodeChanges
from lab.errors import Conflict, Remedy, UsageError
from lab.plan.changes import refuse_even, surplus, with_node, without_nodes
from lab.scenario.model import Role

__all__ = ["Change", "Changed", "add_node", "remove_node", "replace_node", "scale"]


def scale(change: Change, *, workers: int | None = None, control_planes: int | None = None) -> Changed:
    """Bring the lab to so many nodes of a role. New ones come before old ones go.

    Raises:
        UsageError: no cluster can have that many control planes, or this one has no virtual IP.
        Conflict: another klab works on the lab, it is half made or half destroyed, or not klab's to bootstrap.
        HostError: the host has no room for the new machines.
        ClusterError: the quorum would be lost; a node does not join.
    """
    with change.lab.folder.lock():
        run = NodeChanges(change)
        plan, leaving = change.lab.plan, []
        wanted: tuple[tuple[Role, int | None], ...] = (("control-plane", control_planes), ("worker", workers))
        for role, count in wanted:
            if count is None:
                continue
            if role == "control-plane":
                if count < 1:
                    raise UsageError(
                        "a cluster needs a control plane", hint=(Remedy("destroy", lab=plan.name), " removes it all")
                    )
                refuse_even(count, allow=change.allow_even)
            while sum(n.role == role for n in plan.nodes) < count:
                plan = with_node(plan, role)
            leaving += surplus(plan, role, count)
        run.join(plan, [n.name for n in plan.nodes if change.lab.plan.node(n.name) is None])
        run.leave(leaving)
        return run.changed()


def add_node(change: Change, role: Role, name: str | None = None) -> Changed:
    """Add one node; errors as in `scale`, and Conflict when it is there already."""
    with change.lab.folder.lock():
        run = NodeChanges(change)
        plan = change.lab.plan
        if name is None or plan.node(name) is None or name in run.registered():
            plan = with_node(plan, role, name)
        elif not run.half_made(name):
            raise Conflict(
                f"lab {plan.name!r} has a node called {name!r} already, which has left the cluster",
                hint=(Remedy("node join", lab=plan.name, node=name), " lets it join again"),
            )
        if role == "control-plane":
            refuse_even(len(plan.control_planes), allow=change.allow_even)
        run.join(plan, [n.name for n in plan.nodes if change.lab.plan.node(n.name) is None])
        return run.changed()


def remove_node(change: Change, name: str) -> Changed:
    """Take one node out; errors as in `scale`."""
    with change.lab.folder.lock():
        run = NodeChanges(change)
        plan = without_nodes(change.lab.plan, [name])
        if change.lab.plan.known(name).is_control_plane:
            refuse_even(len(plan.control_planes), allow=change.allow_even)
        run.leave([name])
        return run.changed()


def replace_node(change: Change, name: str) -> Changed:
    """Take one node out, dead or alive, and recreate it under its name and address; errors as in `scale`."""
    with change.lab.folder.lock():
        run = NodeChanges(change)
        without_nodes(change.lab.plan, [name])
        run.leave([name], for_good=False)
        run.join(change.lab.plan, [name])
        return run.changed()
