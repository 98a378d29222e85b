"""Nodes join a lab's cluster with a fresh token, and leave it without harm to the cluster.

    join:   plan -> update the other nodes -> token -> seed -> machine -> images -> Ready
    leave:  drain -> update the other nodes -> etcd member -> node object -> machine -> plan

Each step may be repeated. A plan names a node from before its machine exists until after it
is gone, so after a kill the same command finds what is left to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.cluster.acts import images
from lab.cluster.acts.drain import drain
from lab.cluster.acts.power import await_ready
from lab.cluster.clients.api import UnreachableError
from lab.cluster.clients.etcd import Etcd
from lab.cluster.lab import Lab
from lab.cluster.secrets import load_or_make, with_kubelet
from lab.cluster.tokens import fresh_token, revoke_token
from lab.cluster.wait.watch import Watch
from lab.disks.seed_iso import write_iso
from lab.errors import ClusterError, Conflict, LabError, Remedy
from lab.files import write_atomic
from lab.images.record import images_of
from lab.machines.protocol import Machines, NodeState
from lab.plan.changes import without_nodes
from lab.plan.file import to_json
from lab.plan.model import Node, Plan
from lab.render.cloudinit import render_seed
from lab.render.node_update import render_update
from lab.waiting import poll

UPDATE_SECONDS = 300.0
FORGET_POLL_SECONDS = 2.0
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Change:
    """A lab whose nodes are to change.

    `box` is the box file that a new machine is made from, `kubectl` the program that drains.
    `fits` is asked before a machine is made and raises where the host has no room for it.
    """

    lab: Lab
    box: Path | None
    kubectl: str
    fits: Callable[[Plan, Sequence[Node]], None]
    allow_even: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of it: the plan now, who came and who went, and the seconds it took."""

    plan: Plan
    joined: tuple[str, ...]
    left: tuple[str, ...]
    seconds: float


class NodeChanges:
    """One change of one lab."""

    def __init__(self, change: Change) -> None:
        lab = change.lab
        record = lab.finished()
        if lab.plan.bootstrap != "full":
            raise Conflict(
                f"lab {lab.folder.name!r} has no cluster that klab created, so no node can join or leave it",
                hint="its nodes are for the student: bootstrap is " + lab.plan.bootstrap,
            )
        self.change = change
        self.folder = lab.folder
        self.plan = lab.plan
        self.record = record
        self.journal = lab.journal()
        self.deadline = lab.deadline(record)
        self.api = lab.api()
        if record.upgrading_to:
            raise Conflict(
                f"lab {lab.folder.name!r} is half upgraded to Kubernetes {record.upgrading_to}",
                hint=(Remedy("upgrade", options=("--to", record.upgrading_to)), " finishes that first"),
            )
        self.began = time.monotonic()
        self._joined: list[str] = []
        self._left: list[str] = []

    def changed(self) -> Changed:
        return Changed(self.plan, tuple(self._joined), tuple(self._left), time.monotonic() - self.began)

    def registered(self) -> set[str]:
        """The names of the cluster's nodes.

        Raises:
            ClusterError: the API server does not answer.
        """
        try:
            return {item["metadata"]["name"] for item in self.api.get("/api/v1/nodes")["items"]}
        except UnreachableError as error:
            raise ClusterError(
                "the cluster must answer before its nodes can change", details=[error.message], hint=Remedy("status")
            ) from error

    # --- join -----------------------------------------------------------------------------------

    def join(self, plan: Plan, names: Sequence[str]) -> None:
        """Make nodes of a plan and let them join: control planes one by one, workers together.

        Nodes that an earlier run has left out join as well; not those that have left the cluster and live on.
        """
        there = self.registered()
        missing = [n for n in plan.nodes if n.name in names or (n.name not in there and self.half_made(n.name))]
        if not missing:
            return
        self.change.fits(plan, missing)
        self._keep(plan)
        for node in missing:
            if node.is_control_plane:
                self._join([node])
        workers = [n for n in missing if not n.is_control_plane]
        if workers:
            self._join(workers)

    def half_made(self, name: str) -> bool:
        """Whether an earlier run has not finished making this node: its seed is there, or its machine is not."""
        state = self._machines().states().get(name, NodeState.ABSENT)
        return state == NodeState.ABSENT or (self.folder.seeds / f"{name}.iso").exists()

    def _join(self, nodes: Sequence[Node]) -> None:
        names = [n.name for n in nodes]
        self._note_box()
        machines = self._machines()
        for node in nodes:
            # A machine that is half there has used up its seed, or lost its place in the cluster.
            machines.remove(node.name, _quiet)
            if node.is_control_plane:
                self._take_back_member(node)
        # Before it runs: a new load balancer that hears nothing of the others would take the virtual IP.
        self._update_others(names)
        token = fresh_token(self.api)
        secrets = replace(load_or_make(self.folder), token=token)
        for node in nodes:
            seed = render_seed(
                self.plan, node, with_kubelet(secrets, node), slow_host=not self.record.accelerated, joining=True
            )
            write_iso(seed, self.folder.seeds / f"{node.name}.iso")
        watch = Watch(self.folder, self.plan, machines, self.journal, self.deadline, names)
        try:
            watch.power_on()
            watch.until(watch.cleaned, "every new node has joined")
            watch.until(watch.powered, "every new machine answers")
        except BaseException:
            watch.stop()
            raise
        machines.drop_seeds()
        revoke_token(self.api, token)
        self._bring_images(machines, watch, names)
        await_ready(watch, self.api, [name for name, state in machines.states().items() if state == NodeState.RUNNING])
        self._joined += names

    def _bring_images(self, machines: Machines, watch: Watch, names: Sequence[str]) -> None:
        """What klab has brought to the lab's other nodes."""
        crew = images.Crew(self.change.lab.home, self.plan, self.record, machines, self.journal)
        images.bring_untimed(crew, images_of(self.folder), names, watch, self.change.lab)
        self.deadline = watch.deadline

    def _take_back_member(self, node: Node) -> None:
        """A join that failed may have announced a member that never came: etcd must not wait for it."""
        self._etcd().remove_member(node.name)

    # --- leave ----------------------------------------------------------------------------------

    def leave(self, names: Sequence[str], *, for_good: bool = True) -> None:
        """Take nodes out one by one; the plan forgets those that leave for good."""
        for name in names:
            self._leave(self.plan.known(name), for_good=for_good)
            self._left.append(name)

    def _leave(self, node: Node, *, for_good: bool) -> None:
        there = self.registered()
        machines = self._machines()
        left = without_nodes(self.plan, [node.name])
        if node.is_control_plane:
            self._etcd().refuse_loss(node.name)
        runs = machines.states()[node.name] == NodeState.RUNNING
        if runs and node.name in there:
            drain(self.change.lab, self.record, self.change.kubectl, node.name, self.journal, self.deadline)
        self.journal.add(node.name, "remove", "begin")
        if for_good:
            self._update_others([node.name], left)
        if node.is_control_plane:
            self._take_back_member(node)
        machines.power_off([node.name])
        if node.name in there:
            self._forget(node)
        machines.remove(node.name, _quiet)
        if for_good:
            self._keep(left)
        self.journal.add(node.name, "remove", "done")

    def _forget(self, node: Node) -> None:
        """Delete the node's object. The virtual IP may just be moving: patience."""
        seen = ""

        def gone() -> bool:
            nonlocal seen
            try:
                self.api.delete(f"/api/v1/nodes/{node.name}")
            except UnreachableError as error:
                seen = error.message
                return error.status == NOT_FOUND
            return True

        if not poll(gone, self.deadline, every=FORGET_POLL_SECONDS):
            raise ClusterError(
                f"the cluster does not delete the node {node.name}",
                details=[seen],
                hint="run the same command again to continue",
            )

    # --- the others -----------------------------------------------------------------------------

    def _update_others(self, except_for: Sequence[str], plan: Plan | None = None) -> None:
        """Tell each node that runs of the lab's new members: names, time sources, load balancers."""
        plan = plan or self.plan
        machines = self._machines()
        states = machines.states()
        for node in plan.nodes:
            if node.name in except_for or states.get(node.name) != NodeState.RUNNING:
                continue
            try:
                machines.ssh(node.name, ["sudo", "bash", "-s"], UPDATE_SECONDS, stdin=render_update(plan, node))
            except LabError as error:
                raise ClusterError(
                    f"{node.name} cannot be updated with the lab's new nodes",
                    details=[error.message, *error.details],
                    hint=(
                        Remedy("ssh", node=node.name),
                        " shows whether it works; run the same command again to continue",
                    ),
                ) from error

    def _etcd(self) -> Etcd:
        return Etcd(self.folder, self.plan, reach=self.change.lab.reach)

    def _note_box(self) -> None:
        """Keep a box, which after an upgrade is another than the lab's first, from being removed under its machines."""
        box = self.change.box
        if box is not None and box.parent.name not in self.record.boxes:
            self.record = self.folder.update_record(more_boxes=(*self.record.more_boxes, box.parent.name))

    def _machines(self) -> Machines:
        return replace(self.change.lab, plan=self.plan).machines(self.record, self.change.box)

    def _keep(self, plan: Plan) -> None:
        write_atomic(self.folder.plan_file, to_json(plan))
        self.plan = plan


def _quiet(_line: str) -> None:
    """Vagrant's output while a machine goes: only its exit code counts."""
