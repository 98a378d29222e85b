"""A node leaves its cluster and lives on, as `kubeadm reset` has it, and joins again.

    reset:  drain -> etcd member -> kubeadm reset, cleaned up -> node object
    join:   etcd member -> cleaned up -> node object -> token -> the node's own script -> Ready

Machine, disk, container runtime and images stay. Each step may be repeated: after a kill the same command continues.
What a node is, it says itself (`lab.cluster.wait.standing`), so that a reset or a join by hand is seen as well.
"""

from __future__ import annotations

from dataclasses import replace

from lab.cluster.acts.drain import drain
from lab.cluster.acts.node_changes import Change, Changed, NodeChanges
from lab.cluster.acts.on_node import ROOT_SHELL, failure
from lab.cluster.acts.power import await_ready
from lab.cluster.secrets import load_or_make, with_kubelet
from lab.cluster.tokens import fresh_token, revoke_token
from lab.cluster.wait.standing import Standing, standing
from lab.cluster.wait.watch import Watch
from lab.errors import ClusterError, Conflict, Remedy, UsageError
from lab.machines.protocol import NodeState
from lab.plan.model import Node
from lab.render.node_reset import render_rejoin, render_reset

# In the node's own time: kubeadm gives each of ten containers or so up to half a minute to end.
RESET_SECONDS = 300.0
PUT_SECONDS = 120.0
# The console tells at once; each question over ssh takes a slow node seconds.
ASK_EVERY_SECONDS = 10.0
KUBELET_RUNS = ["systemctl", "-q", "is-active", "kubelet"]


def reset_node(change: Change, name: str) -> Changed:
    """Let a node leave the cluster and clean it up; it can join again then, by hand or by `join_node`.

    Raises:
        NotFound: the lab has no such node.
        UsageError: it is the only control plane.
        Conflict: another klab works on the lab, it is half made or half destroyed, or not klab's to bootstrap; the
            node's machine does not run.
        MachineError: the node does not answer.
        ClusterError: the cluster does not answer, the quorum would be lost, or the node cannot be cleaned up.
    """
    with change.lab.folder.lock():
        run = _Membership(change, name)
        run.end()
        return run.changed()


def join_node(change: Change, name: str) -> Changed:
    """Let a node of the lab that is no member of its cluster join, and wait until it is Ready; errors as `reset_node`.

    Raises:
        NotReadyInTime: it does not become Ready.
    """
    with change.lab.folder.lock():
        run = _Membership(change, name)
        run.begin()
        return run.changed()


class _Membership(NodeChanges):
    """One node of one lab, whose membership in the cluster changes."""

    def __init__(self, change: Change, name: str) -> None:
        super().__init__(change)
        self.node: Node = self.plan.known(name)
        self.machines = self._machines()

    def end(self) -> None:
        """The node leaves."""
        node, change = self.node, self.change
        if [n.name for n in self.plan.control_planes] == [node.name]:
            raise UsageError(
                f"{node.name} is the only control plane: without it there is no cluster that it could join again",
                hint=(
                    Remedy("create", options=("bare-1m2w",)),
                    " makes machines on which kubeadm is yours; ",
                    Remedy("destroy", lab=self.plan.name),
                    " removes this lab",
                ),
            )
        there = self.registered()
        self._refuse_off()
        if node.is_control_plane:
            self._etcd().refuse_loss(node.name)
        if node.name in there and self._kubelet_runs():
            drain(change.lab, self.record, change.kubectl, node.name, self.journal, self.deadline)
        self.journal.add(node.name, "reset", "begin")
        if node.is_control_plane:
            self._take_back_member(node)
        self._clean()
        if node.name in there:
            self._forget(node)
        self.journal.add(node.name, "reset", "done")
        self._left.append(node.name)

    def begin(self) -> None:
        """The node joins, unless it is a member already; then only Ready is waited for."""
        node = self.node
        there = self.registered()
        self._refuse_off()
        found = standing(self.machines, node.name)
        if found is Standing.NEW:
            raise Conflict(
                f"{node.name} has not finished its first boot",
                hint=(Remedy("node replace", lab=self.plan.name, node=node.name), " recreates it"),
            )
        watch = Watch(self.folder, self.plan, self.machines, self.journal, self.deadline, [node.name])
        if found is not Standing.MEMBER or node.name not in there:
            self._enter(watch, known=node.name in there)
            self._joined.append(node.name)
        running = [name for name, state in self.machines.states().items() if state == NodeState.RUNNING]
        await_ready(watch, self.api, running)

    def _enter(self, watch: Watch, *, known: bool) -> None:
        node = self.node
        self.journal.add(node.name, "reset", "begin", "what an earlier membership has left")
        if node.is_control_plane:
            self._take_back_member(node)
        self._clean()
        if known:
            # kubeadm does not let a node join whose name the cluster takes for Ready.
            self._forget(node)
        self.journal.add(node.name, "reset", "done")
        # The lab may have grown while it was away.
        self._update_others([n.name for n in self.plan.nodes if n != node])
        token = fresh_token(self.api)
        secrets = with_kubelet(replace(load_or_make(self.folder), token=token), node)
        watch.follow()
        script = render_rejoin(self.plan, node, secrets, slow_host=not self.record.accelerated)
        self._run(script, PUT_SECONDS, "join", f"{node.name} cannot be told how to join")
        try:
            watch.until(watch.cleaned, f"{node.name} has joined", every=ASK_EVERY_SECONDS)
        except ClusterError as error:
            error.advise(("run the same command again to try again; ", Remedy("ssh", node=node.name), " to look"))
            raise
        revoke_token(self.api, token)

    def _refuse_off(self) -> None:
        state = self.machines.states()[self.node.name]
        if state != NodeState.RUNNING:
            lab, name = self.plan.name, self.node.name
            raise Conflict(
                f"the machine of {name} is {state.value}, and kubeadm runs on the node itself",
                hint=(
                    Remedy("start", lab=lab, node=name),
                    " starts it; ",
                    Remedy("node rm", lab=lab, node=name),
                    " takes out a node that does not run",
                ),
            )

    def _kubelet_runs(self) -> bool:
        limit = self.deadline.at_most(PUT_SECONDS)
        return self.machines.ssh(self.node.name, KUBELET_RUNS, limit, check=False).code == 0

    def _clean(self) -> None:
        script = render_reset(self.plan, self.node)
        self._run(script, RESET_SECONDS, "reset", f"{self.node.name} cannot be cleaned up")

    def _run(self, script: str, seconds: float, phase: str, otherwise: str) -> None:
        """Run a script as root on the node; `seconds` are the guest's, `otherwise` is told where it fails."""
        name = self.node.name
        limit = self.deadline.at_most(self.record.guest_clock.host_seconds(seconds))
        if seen := failure(self.machines, name, ROOT_SHELL, limit, script):
            self.journal.add(name, phase, "failed", seen[-1])
            raise ClusterError(
                otherwise,
                details=seen,
                hint=(Remedy("ssh", node=name), " shows whether it works; run the same command again to continue"),
            )
