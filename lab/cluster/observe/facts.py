"""A lab's cluster as it was observed once, as plain data; `lab.cluster.observe.collect` collects it.

What it means that something is so, and what to do about it, is the business of
`lab.cluster.diagnostics`; a few sentences that several commands say are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from textwrap import shorten

from lab.cluster.clients.etcd_answers import Alarm, MemberStatus
from lab.cluster.wait.ready import SYSTEM_NAMESPACES
from lab.components.addons import addons
from lab.components.cni import network
from lab.errors import Remedy
from lab.machines.protocol import NodeState
from lab.plan.model import Plan
from lab.scenario.rules import quorum


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address at which clients reach the API.

    `error` is empty when an API server behind it reports that it is ready. `vip` is empty in a
    lab without one; `holder` names the node that holds it, empty where none is seen to.
    """

    url: str
    error: str
    vip: str
    holder: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node of the plan.

    `machine` is a NodeState's value, or "unknown"; `halted` tells why it is paused although nobody
    has paused it. `api` is for control planes: empty when its
    own API server reports that it is ready, else why not; None for workers. `ready` is the Ready
    condition, None where it cannot be seen; `why` tells why it does not hold or is not seen.
    `unheard`: its Ready condition is Unknown; its kubelet has not reported to the API lately.
    `pressures` are the conditions that say that something runs short (DiskPressure).
    """

    name: str
    role: str
    address: str
    machine: str
    api: str | None = None
    registered: bool | None = None
    ready: bool | None = None
    why: str = ""
    unheard: bool = False
    cordoned: bool = False
    kubelet: str = ""
    pressures: tuple[str, ...] = ()
    halted: str = ""

    @property
    def runs(self) -> bool:
        return self.machine == NodeState.RUNNING


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """One etcd member: of the plan, of the membership, or of both.

    `status` is None when it was not asked or does not answer; `error` tells which. `joined` is
    whether the membership has it, None where that cannot be seen.
    """

    name: str
    planned: bool
    joined: bool | None
    id: int = 0
    learner: bool = False
    status: MemberStatus | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class EtcdFacts:
    """etcd as its members tell. `error` tells why the membership is not known, empty when it is."""

    members: tuple[MemberFacts, ...]
    alarms: tuple[Alarm, ...] = ()
    error: str = ""

    @property
    def voters(self) -> tuple[MemberFacts, ...]:
        """Those whose votes make the quorum: the membership's where it is known, else the plan's."""
        return tuple(m for m in self.members if not m.learner and m.joined is not False)

    @property
    def answering(self) -> tuple[MemberFacts, ...]:
        return tuple(m for m in self.voters if m.status is not None)

    @property
    def needed(self) -> int:
        return quorum(len(self.voters))

    @property
    def leader(self) -> str:
        """The name of the member that the others follow; empty where there is none."""
        ids = [m.status.leader for m in self.answering if m.status and m.status.leader]
        leader = max(set(ids), key=ids.count) if ids else 0
        return next((m.name for m in self.members if m.status and m.status.id == leader), "")

    @property
    def has_quorum(self) -> bool:
        """Whether enough members answer and have a leader."""
        return sum(m.status is not None and m.status.votes for m in self.voters) >= self.needed


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in use. `node` is empty for klab's own; `days` are left by the guests' clocks, None when unseen."""

    node: str
    what: str
    days: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A bootstrap token in the cluster. `hours` are left by the guests' clocks; None when it never expires."""

    id: str
    hours: float | None

    @property
    def valid(self) -> bool:
        return self.hours is None or self.hours > 0


@dataclass(frozen=True, slots=True)
class PodFacts:
    """One pod. `why` tells why it is not ready; `images` are those it cannot get."""

    namespace: str
    name: str
    node: str
    ready: bool
    why: str = ""
    images: tuple[str, ...] = ()

    @property
    def system(self) -> bool:
        return self.namespace in SYSTEM_NAMESPACES


class TimeSource(StrEnum):
    """What a node's clock follows.

    HOST: the clock of the machine that runs the lab, which the hypervisor offers. OWN: nothing; it serves the lab's
    time by itself. NODE: another node of the lab. OTHER: another server. NONE: it is not synchronized.
    """

    HOST = "host"
    OWN = "own"
    NODE = "node"
    OTHER = "other"
    NONE = "none"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What a control plane's clock follows, as its NTP server says.

    `follows` is the name of a node, or an address, where the source is one; `error` tells why it cannot be seen.
    """

    node: str
    source: TimeSource
    follows: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """One observation of a lab.

    `unseen` tells what could not be seen though something runs that should tell, one line each.
    `guest_time` is what the guests' clocks show, in seconds since 1970: as an API server tells,
    or as the lab's timeline has it where none does. Without Kubernetes (bootstrap prepared or
    none) `endpoint` and `etcd` are None. `tokens` and `pods` are None where they cannot be seen. `clocks` are those
    of the control planes that run; the workers follow them, or the host's like them.
    """

    lab: str
    guest_time: float
    nodes: tuple[NodeFacts, ...]
    endpoint: Endpoint | None = None
    etcd: EtcdFacts | None = None
    certificates: tuple[Certificate, ...] = ()
    tokens: tuple[Token, ...] | None = None
    pods: tuple[PodFacts, ...] | None = None
    unseen: tuple[str, ...] = ()
    clocks: tuple[ClockFacts, ...] = ()

    @property
    def stopped(self) -> bool:
        """Whether every machine is there and off."""
        return all(node.machine in {NodeState.STOPPED, NodeState.CRASHED, NodeState.PAUSED} for node in self.nodes)

    @property
    def ready(self) -> bool:
        """Whether every machine runs and, where there is Kubernetes, the API answers and every node is Ready."""
        if not all(node.runs for node in self.nodes):
            return False
        return self.endpoint is None or (not self.endpoint.error and all(node.ready for node in self.nodes))

    @property
    def quorum_lost(self) -> str:
        """That etcd does not work, how many members are missing and which command starts one; empty when it works.

        Also empty while no control plane runs: then nothing is broken, it is off.
        """
        if self.etcd is None or self.etcd.has_quorum or not any(n.runs for n in self.nodes if n.api is not None):
            return ""
        here, all_, needed = len(self.etcd.answering), len(self.etcd.voters), self.etcd.needed
        if here >= needed:
            return f"etcd has no leader: {here} of {all_} members answer; an election takes seconds"
        gone = {NodeState.RUNNING, NodeState.ABSENT, "unknown"}
        off = next((n.name for n in self.nodes if n.api is not None and n.machine not in gone), "")
        way = f"klab start {self.lab} {off} starts one" if off else f"klab doctor {self.lab} finds the cause"
        return f"etcd has lost its quorum: {here} of {all_} members answer, {needed} are needed; {way}"

    @property
    def time_source(self) -> TimeSource:
        """What the lab's time comes from."""
        order = (TimeSource.HOST, TimeSource.OTHER, TimeSource.OWN, TimeSource.NODE, TimeSource.NONE)
        found = {clock.source for clock in self.clocks}
        return next((source for source in order if source in found), TimeSource.UNSEEN)

    @property
    def soonest(self) -> Certificate | None:
        """The certificate that expires first."""
        seen = [c for c in self.certificates if c.days is not None]
        return min(seen, key=lambda c: c.days or 0.0, default=None)

    @property
    def token(self) -> Token | None:
        """The bootstrap token that holds longest."""
        return max(self.tokens or (), key=lambda t: float("inf") if t.hours is None else t.hours, default=None)


def no_member(lab: str, node: str) -> str:
    """That a node has left the cluster and lives on, and the command that lets it join again."""
    return f"{node} is no member of the cluster; {Remedy('node join', lab=lab, node=node)} lets it join again"


def endpoint_line(facts: ClusterFacts) -> str:
    """How clients reach the API, in one line."""
    seen = facts.endpoint
    if seen is None:
        return ""
    held = f", {seen.vip} is held by {seen.holder}" if seen.holder else ""
    if seen.vip and not seen.holder and any(n.runs for n in facts.nodes if n.api is not None):
        held = f", who holds {seen.vip} cannot be seen"
    return f"{seen.url} {'ok' if not seen.error else 'does not answer: ' + seen.error}{held}"


def etcd_line(facts: ClusterFacts) -> str:
    """How etcd is, in one line."""
    etcd = facts.etcd
    if etcd is None:
        return ""
    if facts.quorum_lost:
        return facts.quorum_lost
    if not etcd.answering:
        return etcd.error
    parts = [f"{len(etcd.answering)} of {len(etcd.voters)} members answer, {etcd.needed} are needed"]
    parts.append(f"leader {etcd.leader}" if etcd.leader else "no leader")
    parts += [f"{m.name}: {'; '.join(m.status.errors)}" for m in etcd.members if m.status and not m.status.healthy]
    parts += [f"{m.name} is not a node of this lab" for m in etcd.members if not m.planned]
    parts += [f"{m.name} is not a member" for m in etcd.members if m.joined is False]
    alarms = sorted({alarm.kind for alarm in etcd.alarms})
    parts.append(f"alarm {', '.join(alarms)}" if alarms else "no alarm")
    return "; ".join(parts)


def certificate_line(facts: ClusterFacts) -> str:
    """Which certificate ends first, in one line."""
    soonest = facts.soonest
    if soonest is None or soonest.days is None:
        return "none could be seen"
    whose = f"{soonest.what} on {soonest.node}" if soonest.node else soonest.what
    if soonest.days <= 0:
        return f"EXPIRED {-soonest.days:.0f} days ago: {whose}"
    return f"the soonest expires in {soonest.days:.0f} days: {whose}"


def token_line(facts: ClusterFacts) -> str:
    """Whether a node could join, in one line."""
    if facts.tokens is None:
        return "cannot be seen"
    token = facts.token
    if token is None or not token.valid:
        return f"{'expired' if token else 'none'}; klab token {facts.lab} makes one"
    return "never expires" if token.hours is None else f"{token.hours:.1f} hours left"


def time_line(facts: ClusterFacts) -> str:
    """Where the lab's time comes from, in one line; control planes that follow another one are not named."""
    nodes: dict[TimeSource, list[ClockFacts]] = {}
    for clock in facts.clocks:
        nodes.setdefault(clock.source, []).append(clock)
    if not facts.clocks:
        return "cannot be seen"
    parts = []
    if hosts := nodes.get(TimeSource.HOST):
        some = "" if len(hosts) == len(facts.clocks) else f", followed by {', '.join(c.node for c in hosts)}"
        parts.append(f"this machine's clock{some}")
    parts += [f"{c.node} follows {c.follows}" for c in nodes.get(TimeSource.OTHER, ())]
    parts += [
        f"{c.node}'s own clock, which drifts from this machine's: the hypervisor offers no other"
        for c in nodes.get(TimeSource.OWN, ())
    ]
    parts += [f"{c.node} is not synchronized" for c in nodes.get(TimeSource.NONE, ())]
    parts += [f"{c.node}: {c.error}" for c in nodes.get(TimeSource.UNSEEN, ())]
    return "; ".join(parts) or "the control planes follow one another"


def policies_enforced(plan: Plan, facts: ClusterFacts) -> bool:
    """Whether NetworkPolicy objects have an effect: by the pod network, or by an add-on of which a pod was seen."""
    engines = tuple(begin for addon in addons().values() if addon.enforces_policies for begin in addon.pods)
    return network(plan.kubernetes.cni).enforces_policies or any(p.name.startswith(engines) for p in facts.pods or ())


def pod_line(facts: ClusterFacts) -> str:
    """Which system pods are not ready, in one line; pods of nodes that are off are not counted."""
    if facts.pods is None:
        return "cannot be seen"
    off = {node.name for node in facts.nodes if not node.runs}
    waiting = [p for p in facts.pods if p.system and not p.ready and p.node not in off]
    if not waiting:
        return "all ready"
    return f"{len(waiting)} not ready: " + "; ".join(
        f"{p.name} ({shorten(p.why, width=40, placeholder='...')})" for p in waiting[:3]
    )
