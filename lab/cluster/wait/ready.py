"""What Ready means, as data: a list of requirements, each with a probe and a hint.

The wait asks them in order and passes over those that hold, so that a person sees at any
moment which one is missing. Source of the idea of proof by the kubelet: a node's Ready
condition may be as old as its last lease; an answer through the API server is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.clients.resources import condition, is_ready
from lab.cluster.wait.standing import Standing, standing
from lab.components.addons import addons
from lab.components.cni import network, networks
from lab.errors import Advice, LabError, Remedy
from lab.machines.protocol import Machines
from lab.plan.model import Node, Plan
from lab.waiting import map_parallel

SYSTEM_NAMESPACES = (
    "kube-system",
    *(name for each in networks().values() for name in each.namespaces),
    *(name for each in addons().values() for name in each.namespaces),
)
ETCD_PODS = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Detcd"  # the label is kubeadm's
DNS_NAME = "kubernetes.default.svc.cluster.local"
# Several short questions and a long one: one that went to a CoreDNS pod that is gone is never
# answered, and busybox would wait five of the guests' seconds for it.
DNS_SECONDS = (1, 2, 3, 5)
NODE_CHECK_SECONDS = 180.0

Probe = Callable[[], list[str]]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that must hold. `probe` returns what is still missing, one line each; [] when it holds."""

    name: str
    probe: Probe
    hint: Advice


class Readiness:
    """The requirements of one lab, over one wait.

    `nodes` are the names of those that count, all of the plan when left out: a lab can be used
    while a node is off. Those that have left the cluster, and live on, do not count either: `outside`
    are their names, once the API server has answered.
    """

    def __init__(self, plan: Plan, api: Api, machines: Machines, *, nodes: Sequence[str] | None = None) -> None:
        self._plan = plan
        self._network = network(plan.kubernetes.cni)
        self._nodes = tuple(n for n in plan.nodes if nodes is None or n.name in nodes)
        self._api = api
        self._machines = machines
        # As last seen: by node, "" when Ready, else why not.
        self.conditions: dict[str, str] = {}
        self.outside: tuple[str, ...] = ()
        self._looked_outside = False
        self._first_leases: dict[str, str] | None = None
        self._resolving: set[str] = set()

    @property
    def _control_planes(self) -> tuple[Node, ...]:
        return tuple(n for n in self._nodes if n.is_control_plane)

    def requirements(self, *, remembered: bool = False) -> list[Requirement]:
        """All of them, in the order in which they come true; `remembered` as in `goals`."""
        return [self.requirement(goal) for goal in goals(self._plan, remembered=remembered)]

    def requirement(self, goal: Goal) -> Requirement:
        """A goal as a requirement of this lab."""
        return Requirement(goal.name, understood(lambda: goal.probe(self)), goal.hint)

    def api_answers(self) -> list[str]:
        try:
            self._api.text("/readyz")
            self.pass_over()
        except UnreachableError as error:
            return [error.message]
        return []

    def pass_over(self) -> None:
        """Find out which nodes have left the cluster; once, since none leaves while klab waits.

        Raises:
            UnreachableError: the API server does not answer.
        """
        if self._looked_outside:
            return
        known = self.node_conditions()
        unknown = [n.name for n in self._nodes if n.name not in known]
        self.outside = tuple(name for name, gone in map_parallel(self._has_left, unknown).items() if gone)
        self._nodes = tuple(n for n in self._nodes if n.name not in self.outside)
        self._looked_outside = True

    def _has_left(self, name: str) -> bool:
        try:
            return standing(self._machines, name) is Standing.OUTSIDE
        except LabError:
            return False

    def nodes(self) -> list[str]:
        conditions = self.node_conditions()
        missing = [f"{n.name} has not registered" for n in self._nodes if n.name not in conditions]
        if self._network.present:
            missing += [f"{n.name}: {conditions[n.name]}" for n in self._nodes if conditions.get(n.name)]
        return missing

    def node_conditions(self) -> dict[str, str]:
        """By node: "" when Ready, else why not."""
        found = {}
        for node in self._api.get("/api/v1/nodes")["items"]:
            ready = condition(node, "Ready")
            why = "" if ready.get("status") == "True" else str(ready.get("message") or "not Ready")[:200]
            found[node["metadata"]["name"]] = why
        self.conditions = found
        return found

    def system_pods(self) -> list[str]:
        return self._look_at_pods()[1]

    def _look_at_pods(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The system pods that count, and what is missing of them, one line each."""
        off = {n.name for n in self._plan.nodes} - {n.name for n in self._nodes}
        pods = [p for p in self._api.get("/api/v1/pods")["items"] if p["metadata"]["namespace"] in SYSTEM_NAMESPACES]
        names = [p["metadata"]["name"] for p in pods]
        counting = [p for p in pods if p.get("spec", {}).get("nodeName") not in off]
        missing = [_pod_state(p) for p in counting if not is_ready(p)]
        missing += [f"{c} has no pod yet" for c in self._expected() if not any(n.startswith(c) for n in names)]
        return counting, missing

    def running_pods(self) -> list[str]:
        """As `system_pods`, and each runs by the word of its kubelet.

        A kubelet that has just started tells the API server of its pods one after the other, and of one that
        does not come up again only that it waits.
        """
        pods, missing = self._look_at_pods()
        if missing:
            return missing
        running = map_parallel(self._running_on, [n.name for n in self._nodes], most=8)
        for pod in pods:
            name, node = _pod_name(pod), pod["spec"]["nodeName"]
            containers = {c["name"] for c in pod["spec"]["containers"]}
            found = running.get(node)
            if found is not None and not (name in found and containers <= found[name]):
                missing.append(f"{name} on {node}: was ready before, does not run yet")
        return missing

    def _running_on(self, node: str) -> dict[str, set[str]] | None:
        """By pod the names of its containers that run; None where a kubelet is set not to tell."""
        try:
            items = self._api.get(f"/api/v1/nodes/{node}/proxy/runningpods/", seconds=30)["items"]
        except UnreachableError as error:
            if 400 <= error.status < 500:
                return None
            raise
        return {_pod_name(pod): {c["name"] for c in pod["spec"]["containers"]} for pod in items or []}

    def _expected(self) -> Iterable[str]:
        for node in self._control_planes:
            for part in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
                yield f"{part}-{node.name}"
        yield "coredns"
        yield "kube-proxy"
        yield from self._network.pods

    def kubelets(self) -> list[str]:
        def ask(name: str) -> str:
            try:
                answer = self._api.text(f"/api/v1/nodes/{name}/proxy/healthz", seconds=30)
            except UnreachableError as error:
                return f"{name}: {error.message}"
            return "" if answer.strip() == "ok" else f"{name}: kubelet reports {answer.strip()[:100]}"

        return [line for line in map_parallel(ask, [n.name for n in self._nodes], most=8).values() if line]

    def leases(self) -> list[str]:
        """Judged by change, not by date: on an emulated host the guests' clocks are not the host's."""
        items = self._api.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")["items"]
        now = {item["metadata"]["name"]: str(item["spec"].get("renewTime")) for item in items}
        if self._first_leases is None:
            self._first_leases = now
        first = self._first_leases
        return [
            f"{n.name}: not renewed since the wait began"
            for n in self._nodes
            if now.get(n.name) is None or now[n.name] == first.get(n.name)
        ]

    def etcd(self) -> list[str]:
        ready = {pod["metadata"]["name"] for pod in self._api.get(ETCD_PODS)["items"] if is_ready(pod)}
        return [f"etcd on {n.name} is not ready" for n in self._control_planes if f"etcd-{n.name}" not in ready]

    def dns(self) -> list[str]:
        """Each node until it has had an answer once.

        Of CoreDNS' two pods one may be on a machine that is off: until Kubernetes has noticed, every
        second question goes there and is lost, and all nodes would hardly ever be lucky at once.
        """
        command = dns_question(str(self._plan.kubernetes.dns_address))

        def ask(name: str) -> str:
            try:
                done = self._machines.run(name, command, timeout=NODE_CHECK_SECONDS)
            except LabError as error:
                return f"{name}: {error.message}"
            last = (done.tail or ["no answer"])[-1]
            if done.code == 0:
                self._resolving.add(name)
                return ""
            return f"{name}: {DNS_NAME} does not resolve ({last})"

        silent = [n.name for n in self._nodes if n.name not in self._resolving]
        return [line for line in map_parallel(ask, silent, most=8).values() if line]


@dataclass(frozen=True, slots=True)
class Goal:
    """A part of what Ready means, for labs of one plan; `probe` as a Requirement's, of one lab."""

    name: str
    probe: Callable[[Readiness], list[str]]
    hint: Advice


def goals(plan: Plan, *, remembered: bool = False) -> list[Goal]:
    """What Ready means for the labs of a plan, in the order in which it comes true.

    Args:
        plan: the plan; pods and DNS need a pod network, etcd members are asked where there are several.
        remembered: the API server may believe what it was told before the machines went off.
            Then each node's lease must be renewed before anything else is asked, and its kubelet
            is asked which pods run. Otherwise the answer of its kubelet proves as much as a
            lease, and at once: a lease is renewed every ten seconds.
    """
    ask_pods = Remedy("kubectl", options=("--", "get", "pods", "-A", "-o", "wide"))
    # Without a pod network neither DNS nor any pod can run: that part is the student's.
    cni = network(plan.kubernetes.cni).present
    answers = Goal(
        "the API server answers",
        lambda r: r.api_answers(),
        (Remedy("logs", options=("NODE",)), " shows the node's console; ", Remedy("status")),
    )
    renewed = Goal(
        "every node's lease is renewed",
        lambda r: r.leases(),
        Remedy("kubectl", options=("--", "get", "leases", "-n", "kube-node-lease")),
    )
    nodes = Goal(
        "every node is Ready" if cni else "every node is registered",
        lambda r: r.nodes(),
        Remedy("kubectl", options=("--", "describe", "nodes")),
    )
    pods = Goal("system pods are ready", lambda r: r.running_pods() if remembered else r.system_pods(), ask_pods)
    kubelets = Goal(
        "every kubelet answers",
        lambda r: r.kubelets(),
        Remedy("ssh", options=("NODE", "--", "sudo", "journalctl", "-u", "kubelet", "-n", "50")),
    )
    etcd = Goal("every etcd member is healthy", lambda r: r.etcd(), ask_pods)
    dns = Goal("cluster DNS answers on every node", lambda r: r.dns(), (Remedy("doctor", lab=plan.name), " tells why"))
    table = (
        (answers, True),
        (renewed, remembered),
        (nodes, True),
        (pods, cni),
        (kubelets, True),
        (etcd, plan.load_balancer is not None),
        (dns, cni),
    )
    return [goal for goal, applies in table if applies]


def dns_question(server: str) -> list[str]:
    """The command by which a node asks the DNS server of this address for the API server; fails without an answer."""
    seconds = " ".join(map(str, DNS_SECONDS))
    ask = f"timeout $seconds busybox nslookup {DNS_NAME} {server}"
    return ["sh", "-c", f"for seconds in {seconds}; do {ask} && exit; done; exit 1"]


def understood(probe: Probe) -> Probe:
    """The same probe, to which an answer of the API server that is malformed is one thing more that is missing."""

    def asked() -> list[str]:
        try:
            return probe()
        except (LookupError, TypeError, AttributeError) as error:
            return [f"an answer of the API server is malformed: {type(error).__name__}: {str(error)[:100]}"]

    return asked


def _pod_name(pod: dict[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _pod_state(pod: dict[str, Any]) -> str:
    status = pod.get("status", {})
    reasons = []
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            reasons.append(f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()[:160])
    why = "; ".join(reasons) or status.get("phase", "unknown")
    where = pod.get("spec", {}).get("nodeName", "no node")
    return f"{_pod_name(pod)} on {where}: {why}"
