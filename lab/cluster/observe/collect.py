"""Observe a lab's cluster from the host, once, within a few seconds.

Every probe is bounded and all run side by side; machines that do not run are not asked.
Nothing here raises: a fact that cannot be seen is a text that tells why, because a person who asks may
have a cluster that does not work.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Any

from lab import process
from lab.cluster.clients import ntp
from lab.cluster.clients.etcd import CLIENT_PORT, Etcd
from lab.cluster.clients.etcd_answers import EtcdMember, MemberStatus, name_of
from lab.cluster.clients.https import ASK_SECONDS, Https, UnreachableError
from lab.cluster.clients.reach import Reach, direct
from lab.cluster.clients.resources import bootstrap_token
from lab.cluster.observe.api_objects import name_of_object, node_facts, pod_facts, read_all
from lab.cluster.observe.facts import (
    Certificate,
    ClockFacts,
    ClusterFacts,
    Endpoint,
    EtcdFacts,
    MemberFacts,
    NodeFacts,
    TimeSource,
    Token,
)
from lab.cluster.secrets import admin_files, etcd_client_files
from lab.errors import LabError
from lab.machines.protocol import Machines, NodeState
from lab.plan.model import API_PORT, Node, Plan
from lab.store import LabFolder, Record
from lab.waiting import workers

KUBELET_PORT = 10250
# What chronyd gives as its reference (chrony.conf(5), refid): a PTP device's clock, and its own under `local`.
HOST_CLOCK = b"PHC"
OWN_CLOCK = bytes([127, 127, 1, 1])
# Of a probe's time: who drops datagrams silently holds up no one who only wants to know whether the lab works.
CLOCK_SHARE = 0.5
TOKENS = "/api/v1/namespaces/kube-system/secrets?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken"
DAY = 24 * 3600.0
WORKERS = 32
# How long one probe may take where machines are emulated: on a busy host an API server there needs more than 5 seconds.
ASK_SECONDS_EMULATED = 15.0


def collect_facts(
    folder: LabFolder,
    plan: Plan,
    record: Record,
    machines: Machines,
    *,
    seconds: float | None = None,
    reach: Reach = direct,
) -> ClusterFacts:
    """Observe a lab once.

    Args:
        folder: the lab's folder.
        plan: the lab's plan.
        record: for the guests' clocks, where no API server tells.
        machines: asked for their states only.
        seconds: how long one probe may take; by default what its host can do.
        reach: where a node's port is reached from here.
    """
    by_default = ASK_SECONDS if record.accelerated else ASK_SECONDS_EMULATED
    return _Collector(folder, plan, record, machines, seconds or by_default, reach).take()


class _Collector:
    """One observation of one lab."""

    def __init__(
        self, folder: LabFolder, plan: Plan, record: Record, machines: Machines, seconds: float, reach: Reach
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.seconds = seconds
        self.reach = reach
        # What it should be, until an API server has told what it is.
        self.guest_time = record.guest_clock.guest(time.time())
        self.unseen: list[str] = []
        self.states = self._states(machines)
        self.halted = self._halted(machines)
        self.running = [n for n in plan.nodes if self.states.get(n.name, NodeState.RUNNING) == NodeState.RUNNING]
        self.planes = [n for n in self.running if n.is_control_plane]

    def take(self) -> ClusterFacts:
        if self.plan.bootstrap != "full":
            nodes = tuple(self._machine(node) for node in self.plan.nodes)
            # A cloud image serves no time.
            served = [] if self.plan.cloud_image else self.planes
            with workers(WORKERS) as pool:
                clocks = tuple(pool.map(self._clock, served))
            return ClusterFacts(self.plan.name, self.guest_time, nodes, unseen=tuple(self.unseen), clocks=clocks)
        https = Https(admin_files(self.folder), self.reach, self.seconds)
        with workers(WORKERS) as pool:
            waiting = pool.submit(self._endpoint, https)
            apis = {n.name: pool.submit(_api, https, n.address, API_PORT) for n in self.planes}
            statuses = self._statuses(pool)
            certificates = self._certificates(pool)
            asked_clocks = [pool.submit(self._clock, node) for node in self.planes]
            endpoint = waiting.result()
            answers = {name: each.result() for name, each in apis.items()}
            api = {name: each.error for name, each in answers.items()}
            self.guest_time = next((h.clock for h in answers.values() if h.clock is not None), self.guest_time)
            door = self._door(endpoint, api)
            asked = [pool.submit(_items, https, door, path) for path in ("/api/v1/nodes", "/api/v1/pods", TOKENS)]
            etcd = self._etcd({name: each.result() for name, each in statuses.items()})
            registered, pods, tokens = (each.result() for each in asked)
            shown = tuple(self._certificate(*each.result()) for each in certificates)
        for what, found in (("nodes", registered), ("pods", pods), ("bootstrap tokens", tokens)):
            if isinstance(found, str) and self.planes:
                self.unseen.append(f"{what}: {found}")
        return ClusterFacts(
            lab=self.plan.name,
            guest_time=self.guest_time,
            nodes=tuple(self._node(node, api, registered) for node in self.plan.nodes),
            endpoint=endpoint,
            etcd=etcd,
            certificates=(*shown, self._own()),
            tokens=None if isinstance(tokens, str) else self._tokens(tokens),
            pods=None if isinstance(pods, str) else read_all(pod_facts, pods),
            unseen=tuple(self.unseen),
            clocks=tuple(each.result() for each in asked_clocks),
        )

    # --- machines and nodes -------------------------------------------------------------------

    def _states(self, machines: Machines) -> Mapping[str, NodeState]:
        try:
            return machines.states()
        except LabError as error:
            self.unseen.append(f"machines: {error.message}")
            return {}

    def _halted(self, machines: Machines) -> Mapping[str, str]:
        if NodeState.PAUSED not in self.states.values():
            return {}
        try:
            return machines.halted()
        except LabError as error:
            self.unseen.append(f"why machines are paused: {error.message}")
            return {}

    def _machine(self, node: Node) -> NodeFacts:
        halted = self.halted.get(node.name, "")
        return NodeFacts(node.name, node.role, str(node.address), self._state(node.name), halted=halted)

    def _node(self, node: Node, api: Mapping[str, str], registered: list[dict[str, Any]] | str) -> NodeFacts:
        facts = self._machine(node)
        if node.is_control_plane:
            facts = replace(facts, api=api.get(node.name, f"the machine is {facts.machine}"))
        if isinstance(registered, str):
            return replace(facts, why=registered)
        found = next((n for n in registered if name_of_object(n) == node.name), None)
        if found is None:
            return replace(facts, registered=False, ready=False, why="it has not registered")
        read = read_all(lambda node: node_facts(facts, node), [found])
        return read[0] if read else replace(facts, why="the API's answer about it is not a node")

    def _state(self, name: str) -> str:
        state = self.states.get(name)
        return state.value if state else "unknown"

    def _clock(self, node: Node) -> ClockFacts:
        try:
            reference = ntp.ask(node.address, seconds=self.seconds * CLOCK_SHARE, reach=self.reach).reference
        except UnreachableError as error:
            return ClockFacts(node.name, TimeSource.UNSEEN, error=error.message)
        if not reference:
            return ClockFacts(node.name, TimeSource.NONE)
        if reference.startswith(HOST_CLOCK):
            return ClockFacts(node.name, TimeSource.HOST)
        if reference == OWN_CLOCK:
            return ClockFacts(node.name, TimeSource.OWN)
        address = IPv4Address(reference)
        name = next((other.name for other in self.plan.nodes if other.address == address), "")
        return ClockFacts(node.name, TimeSource.NODE if name else TimeSource.OTHER, name or str(address))

    # --- the API ------------------------------------------------------------------------------

    def _endpoint(self, https: Https) -> Endpoint:
        address, port = self.plan.api_endpoint
        url = f"https://{address}:{port}"
        balancer = self.plan.load_balancer
        vip = "" if balancer is None else str(balancer.vip)
        behind = [n for n in self.planes if balancer is None or n.name in balancer.nodes]
        if not behind:
            return Endpoint(
                url, "no control plane runs" if not self.planes else "no node runs that may hold it", vip, ""
            )
        error = _api(https, address, port).error
        return Endpoint(url, error, vip, self._holder(vip, answered=not error) if vip else "")

    def _holder(self, vip: str, *, answered: bool) -> str:
        """The running node whose network card answers for the virtual IP, as this host's neighbour table has it."""
        try:
            done = process.run(["ip", "-json", "neigh", "show", vip], timeout=self.seconds, check=False)
            entries = [
                (str(e.get("lladdr", "")).lower(), set(e.get("state", ()))) for e in json.loads(done.stdout or "[]")
            ]
        except (LabError, ValueError, TypeError, AttributeError, RecursionError):
            return ""
        # Without an answer a moment ago an entry may be about who held it before.
        good = {"REACHABLE"} | ({"STALE", "DELAY", "PROBE", "PERMANENT"} if answered else set())
        cards = {card for card, states in entries if states & good}
        return next((n.name for n in self.planes if n.mac in cards), "")

    def _door(self, endpoint: Endpoint, api: Mapping[str, str]) -> tuple[IPv4Address, int] | str:
        """Where to ask about the cluster: through the endpoint, else any API server that answers; or why nowhere."""
        if not endpoint.error:
            return self.plan.api_endpoint
        for node in self.planes:
            if not api[node.name]:
                return node.address, API_PORT
        return endpoint.error

    # --- etcd ---------------------------------------------------------------------------------

    def _statuses(self, pool: Executor) -> dict[str, Future[MemberStatus | str]]:
        try:
            etcd = self._ask_etcd([n.name for n in self.planes])
        except LabError as error:
            message = error.message
            return {n.name: pool.submit(lambda: message) for n in self.planes}
        return {n.name: pool.submit(_status, etcd, n.name) for n in self.planes}

    def _ask_etcd(self, nodes: Sequence[str]) -> Etcd:
        return Etcd(self.folder, self.plan, nodes=nodes, reach=self.reach, seconds=self.seconds)

    def _etcd(self, statuses: Mapping[str, MemberStatus | str]) -> EtcdFacts:
        alive = [name for name, found in statuses.items() if isinstance(found, MemberStatus)]
        if not self.planes:
            return EtcdFacts(self._members(statuses, None), error="no control plane runs")
        try:
            members = self._ask_etcd(alive).members()
        except LabError as error:
            return EtcdFacts(self._members(statuses, None), error=error.message)
        found = EtcdFacts(self._members(statuses, members))
        # Alarms are agreed on: without a quorum no member tells.
        if not found.has_quorum:
            return found
        try:
            return replace(found, alarms=self._ask_etcd(alive).alarms())
        except LabError as error:
            self.unseen.append(f"etcd's alarms: {error.message}")
            return found

    def _members(
        self, statuses: Mapping[str, MemberStatus | str], members: Sequence[EtcdMember] | None
    ) -> tuple[MemberFacts, ...]:
        known = {name_of(m, self.plan): m for m in members or ()}
        found = []
        for node in self.plan.control_planes:
            status = statuses.get(node.name, f"the machine is {self._state(node.name)}")
            member = known.pop(node.name, None)
            found.append(
                MemberFacts(
                    node.name,
                    planned=True,
                    joined=None if members is None else member is not None,
                    id=member.id if member else status.id if isinstance(status, MemberStatus) else 0,
                    learner=bool(member and member.learner),
                    status=status if isinstance(status, MemberStatus) else None,
                    error=status if isinstance(status, str) else "",
                )
            )
        found += [
            MemberFacts(name, planned=False, joined=True, id=m.id, learner=m.learner, error="the plan does not know it")
            for name, m in known.items()
        ]
        return tuple(found)

    # --- certificates and tokens --------------------------------------------------------------

    def _certificates(self, pool: Executor) -> list[Future[_ServerCertificate]]:
        admin = Https(admin_files(self.folder), self.reach, self.seconds)
        try:
            etcd = Https(etcd_client_files(self.folder), self.reach, self.seconds)
        except LabError:
            etcd = None  # said where etcd's members are asked
        asked = []
        for node in self.running:
            if node.is_control_plane:
                asked.append((node, "API server", admin, API_PORT))
                if etcd is not None:
                    asked.append((node, "etcd", etcd, CLIENT_PORT))
            asked.append((node, "kubelet", admin, KUBELET_PORT))
        return [pool.submit(_server_certificate, *each) for each in asked]

    def _certificate(self, node: str, what: str, expires: datetime.datetime | None, error: str) -> Certificate:
        days = None if expires is None else (expires.timestamp() - self.guest_time) / DAY
        return Certificate(node, what, days, error)

    def _own(self) -> Certificate:
        from cryptography import x509

        file = admin_files(self.folder).certificate
        try:
            expires = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
        except (OSError, ValueError) as error:
            return self._certificate("", "klab's admin", None, f"{file} cannot be read: {error}")
        return self._certificate("", "klab's admin", expires, "")

    def _tokens(self, items: Sequence[dict[str, Any]]) -> tuple[Token, ...]:
        """The tokens that a node could join with; other Secrets are left out."""
        return read_all(self._token, items)

    def _token(self, item: Mapping[str, Any]) -> Token | None:
        found = bootstrap_token(item)
        if found is None:
            return None
        return Token(found.id, None if found.expires is None else (found.expires - self.guest_time) / 3600)


@dataclass(frozen=True, slots=True)
class _ApiAnswer:
    """What an API server answers: why it is not ready, empty when it is; its clock in seconds since 1970, or None."""

    error: str
    clock: float | None = None


def _api(https: Https, address: IPv4Address, port: int) -> _ApiAnswer:
    try:
        answer = https.get(address, port, "/readyz")
    except UnreachableError as error:
        return _ApiAnswer(error.message)
    clock = answer.clock.timestamp() if answer.clock else None
    if answer.status == 200:
        return _ApiAnswer("", clock)
    # /readyz lists its checks, one a line: "[-]etcd failed: reason withheld".
    failed = [line[3:] for line in answer.text.splitlines() if line.startswith("[-]")]
    return _ApiAnswer(f"not ready: {'; '.join(failed) or answer.status}"[:300], clock)


# The certificate of a server: its node, what the server is, when it expires, else why that cannot be seen.
_ServerCertificate = tuple[str, str, datetime.datetime | None, str]


def _server_certificate(node: Node, what: str, https: Https, port: int) -> _ServerCertificate:
    try:
        return node.name, what, _parse(https.peer_certificate(node.address, port)), ""
    except (UnreachableError, ValueError) as error:
        return node.name, what, None, str(getattr(error, "message", error))


def _items(https: Https, door: tuple[IPv4Address, int] | str, path: str) -> list[dict[str, Any]] | str:
    """The items of a list of the API's, or why they are not to be had."""
    if isinstance(door, str):
        return door
    try:
        found = https.get_json(*door, path)["items"] or []  # Go writes null for an empty list
        return [item for item in found if isinstance(item, dict)]
    except UnreachableError as error:
        return error.message
    except (LookupError, TypeError, AttributeError):
        return "the answer is not a list"


def _status(etcd: Etcd, name: str) -> MemberStatus | str:
    try:
        return etcd.status(name)
    except LabError as error:
        return error.message


def _parse(der: bytes) -> datetime.datetime:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).not_valid_after_utc
