"""Upgrade a lab's Kubernetes to the next version, node by node, as kubeadm's documentation has it.

    packages on every node -> first control plane -> other control planes -> workers -> pod network -> plan -> Ready

On each node: kubeadm, drain, kubelet, uncordon. Which of it is left to do is asked of the cluster, so after a failure
or a kill the same command continues; on a node a script that klab was cut off from ends by itself, and holds a lock.
Source: kubernetes.io, "Upgrading kubeadm clusters".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import process
from lab.cluster.acts.drain import drain, run_kubectl
from lab.cluster.acts.on_node import ROOT_SHELL, failure, refuse_off
from lab.cluster.acts.power import await_ready
from lab.cluster.acts.steps import Context, apply_step, run_steps
from lab.cluster.clients.api import UnreachableError
from lab.cluster.clients.resources import condition
from lab.cluster.lab import Lab
from lab.cluster.wait.ready import Requirement
from lab.cluster.wait.watch import Watch
from lab.components.cni import network
from lab.components.kubernetes.versions import KubernetesVersion
from lab.errors import ClusterError, Conflict, LabError, Remedy
from lab.files import write_atomic
from lab.plan.file import to_json
from lab.plan.model import Node
from lab.plan.versions import with_version
from lab.render import upgrade as scripts
from lab.waiting import map_parallel

# Marks a node that klab keeps pods away from; one that a person has cordoned stays so.
CORDONED = "klab/cordoned-for-upgrade"
# A gigabyte less than half as large, over an emulated guest's ssh, and what it takes to unpack it.
_RECEIVE_SECONDS = 1800.0
_LOOK_SECONDS = 60.0
# In the node's own time: four static pods are replaced one by one, etcd's first.
_KUBEADM_SECONDS = 1800.0
_PACKAGE_SECONDS = 600.0
ATTEMPTS = 3
# Side by side each would only be slower: the host's cores are what they share.
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Order:
    """A lab and the version that it is to have.

    `file` is what its nodes need for that (`lab.boxes.store.upgrade_file`), `kubectl` the program that drains,
    `snapshot` the name of the snapshot from before, empty where there is none.
    """

    lab: Lab
    target: KubernetesVersion
    file: Path
    kubectl: str
    snapshot: str = ""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A lab that was upgraded. `nodes` are those that this run has changed; none where all had the version already."""

    before: str
    after: str
    nodes: tuple[str, ...]
    snapshot: str
    seconds: float


def upgrade(order: Order) -> Upgraded:
    """Upgrade a lab, or continue with what is left to do, and wait until it is Ready.

    Raises:
        Conflict: another klab works on the lab, it is half made or destroyed, not klab's to bootstrap, or not all on.
        ClusterError, MachineError, NotReadyInTime: a node fails; the same command continues then.
    """
    with order.lab.folder.lock():
        return _Upgrade(order).run()


def refuse_unfit(lab: Lab) -> None:
    """Make sure that a lab can be upgraded as it is.

    Raises:
        Conflict: its cluster is not klab's to bootstrap, or not all of its machines run.
    """
    if lab.plan.bootstrap != "full":
        raise Conflict(
            f"lab {lab.name!r} has no cluster that klab created",
            hint="its nodes are for the student: kubeadm upgrade plan, on the control plane",
        )
    refuse_off(lab.machines(), lab.name)


def spread(lab: Lab, target: KubernetesVersion, file: Path) -> None:
    """Give every node the packages and images of a version, and change nothing else; errors as `upgrade`."""
    with lab.folder.lock():
        _Upgrade(Order(lab, target, file, kubectl="")).spread(lab.plan.nodes)


class _Upgrade:
    """One run over one lab."""

    def __init__(self, order: Order) -> None:
        lab = order.lab
        self.record = lab.finished()
        refuse_unfit(lab)
        self.began = time.monotonic()
        self.order, self.lab = order, lab
        self.plan = with_version(lab.plan, order.target)
        self.version = order.target.version
        self.machines = lab.machines(self.record)
        self.journal = lab.journal()
        self.deadline = lab.deadline(self.record)
        self.api = lab.api()
        self.watch = Watch(lab.folder, self.plan, self.machines, self.journal, self.deadline)

    def run(self) -> Upgraded:
        before, left = self.lab.plan.kubernetes.version, self._left()
        snapshot = self.order.snapshot or self.record.upgrade_snapshot
        self.lab.folder.update_record(upgrading_to=self.version, upgrade_snapshot=snapshot)
        self.spread(left)
        first = self.plan.control_planes[0]
        for node in self.plan.nodes:
            if node in left and not self._done_meanwhile(node):
                self._upgrade(node, first=node == first)
            self._uncordon(node)
        self._apply_pod_network()
        await_ready(self.watch, self.api, [n.name for n in self.plan.nodes])
        write_atomic(self.lab.folder.plan_file, to_json(self.plan))
        self.lab.folder.update_record(upgrading_to="", upgrade_snapshot="")
        names = tuple(node.name for node in left)
        return Upgraded(before, self.version, names, snapshot, time.monotonic() - self.began)

    # --- what there is ------------------------------------------------------------------------------

    def _nodes(self) -> dict[str, dict[str, Any]]:
        try:
            return {item["metadata"]["name"]: item for item in self.api.get("/api/v1/nodes")["items"]}
        except UnreachableError as error:
            raise ClusterError(
                "the cluster must answer before it can be upgraded", details=[error.message], hint=Remedy("status")
            ) from error

    def _left(self) -> list[Node]:
        """The nodes whose kubelet is of another version."""
        there = self._nodes()
        missing = [node.name for node in self.plan.nodes if node.name not in there]
        if missing:
            raise Conflict(
                f"the cluster has no node called {', '.join(missing)}",
                hint=(
                    Remedy("node join", node=missing[0]),
                    " lets it join again, ",
                    Remedy("node replace", node=missing[0]),
                    " recreates it",
                ),
            )
        return [node for node in self.plan.nodes if _kubelet_version(there[node.name]) != f"v{self.version}"]

    # --- packages -----------------------------------------------------------------------------------

    def spread(self, nodes: Sequence[Node]) -> None:
        """Give nodes the packages and images of the version, where they lack them."""
        look, receive = (
            ["sudo", "sh", "-c", make(self.version)] for make in (scripts.render_look, scripts.render_receive)
        )

        def give(name: str) -> None:
            if self.machines.ssh(name, look, self._limit(_LOOK_SECONDS), check=False).code == 0:
                return
            with self.journal.span(name, "packages"):
                self._done(name, self._limit(_RECEIVE_SECONDS), receive, self.order.file)
                self._run(name, scripts.render_packages(self.version), _PACKAGE_SECONDS)

        # What is half received is received again: a Ctrl-C need not wait for minutes.
        with process.ended_together() as stop:
            map_parallel(give, [node.name for node in nodes], most=_AT_ONCE, give_up=True, stop=stop)

    # --- a node -------------------------------------------------------------------------------------

    def _done_meanwhile(self, node: Node) -> bool:
        """Whether a node has the version by now: what a killed klab has left at work there is waited for."""
        self._done(node.name, self._limit(_KUBEADM_SECONDS), ["sudo", "sh", "-c", scripts.WAIT])
        self.watch.hold(self._is_ready(node))
        return _kubelet_version(self._nodes()[node.name]) == f"v{self.version}"

    def _upgrade(self, node: Node, *, first: bool) -> None:
        with self.journal.span(node.name, "kubeadm upgrade"):
            self._kubeadm(node, first=first)
        self._cordon(node)
        drain(self.lab, self.record, self.order.kubectl, node.name, self.journal, self.deadline)
        with self.journal.span(node.name, "kubelet"):
            self._run(node.name, scripts.render_kubelet(self.version), _PACKAGE_SECONDS)
            self.watch.hold(self._is_ready(node, f"v{self.version}"))
        self.journal.add(node.name, "upgrade", "done")

    def _kubeadm(self, node: Node, *, first: bool) -> None:
        """Let kubeadm upgrade a node. It gives up where an API server, which it restarts itself, is not back yet."""
        script = scripts.render_kubeadm(self.plan, node, first=first, slow_host=not self.record.accelerated)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._run(node.name, script, _KUBEADM_SECONDS)
            except ClusterError as error:
                if attempt == ATTEMPTS:
                    raise
                self.journal.add(node.name, "kubeadm upgrade", "retry", error.details[-1])
                self.watch.hold(self._is_ready(node))
            else:
                break
        self.watch.hold(self._is_ready(node))

    def _cordon(self, node: Node) -> None:
        """Mark a node that is about to be drained, unless a person keeps pods away from it."""
        if not self._nodes()[node.name]["spec"].get("unschedulable"):
            self._kubectl("annotate", "node", node.name, f"{CORDONED}=", "--overwrite")

    def _uncordon(self, node: Node) -> None:
        """Let a node that klab has drained have pods again. Idempotent."""
        if CORDONED in (self._nodes()[node.name]["metadata"].get("annotations") or {}):
            self._kubectl("uncordon", node.name)
            self._kubectl("annotate", "node", node.name, f"{CORDONED}-")

    def _kubectl(self, *words: str) -> None:
        """Run kubectl until the API server, which may just be restarting, takes it."""
        seen: list[str] = []

        def done() -> bool:
            try:
                run_kubectl(self.lab, self.order.kubectl, *words)
            except LabError as error:
                seen[:] = [*error.details][-1:] or [error.message]
                return False
            return True

        self.watch.until(done, f"kubectl {words[0]} {words[-1]} is done", every=5.0, missing=lambda: seen)

    def _is_ready(self, node: Node, version: str = "") -> Requirement:
        """That the API server answers, and a node is Ready, with a kubelet of that version if one is given."""

        def probe() -> list[str]:
            self.api.text("/readyz")
            there = self.api.get(f"/api/v1/nodes/{node.name}")
            if version and (found := _kubelet_version(there)) != version:
                return [f"{node.name}: its kubelet is {found}"]
            ready = condition(there, "Ready")
            return [] if ready.get("status") == "True" else [f"{node.name}: {ready.get('message') or 'not Ready'}"]

        ask = ("--", "sudo", "journalctl", "-u", "kubelet", "-n", "50")
        name = f"{node.name} is Ready" + (f" with the kubelet {version}" if version else "")
        return Requirement(name, probe, Remedy("ssh", node=node.name, options=ask))

    def _apply_pod_network(self) -> None:
        """The pod network of the version that goes with the new Kubernetes; the same again changes nothing."""
        context = Context.of(replace(self.lab, plan=self.plan), self.record, self.machines, self.watch)
        pods = network(self.plan.kubernetes.cni)
        run_steps([apply_step("pod network", lambda _context: pods.manifest(self.plan))], context)

    # --- scripts ------------------------------------------------------------------------------------

    def _limit(self, seconds: float) -> float:
        return self.deadline.at_most(self.record.guest_clock.host_seconds(seconds))

    def _run(self, name: str, script: str, seconds: float) -> None:
        self._done(name, self._limit(seconds), ROOT_SHELL, script)

    def _done(self, name: str, seconds: float, command: Sequence[str], stdin: str | Path | None = None) -> None:
        if seen := failure(self.machines, name, command, seconds, stdin):
            before = self.order.snapshot or self.record.upgrade_snapshot
            back = (Remedy("restore", lab=self.lab.name, options=(before,)), " brings the lab back") if before else ()
            raise ClusterError(
                f"{name} cannot be upgraded to Kubernetes {self.version}",
                details=seen,
                hint=("run the same command again to continue", *(("; ", *back) if back else ())),
            )


def _kubelet_version(node: dict[str, Any]) -> str:
    return str(node["status"]["nodeInfo"]["kubeletVersion"])
