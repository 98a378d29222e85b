"""etcd's members, asked from the host over their JSON gateway.

Each control plane runs one member as a static pod, on its own address. What only concerns one
member (its status, the membership as it knows it) it answers alone; what all must agree on
(alarms, removals) wants a quorum. 64-bit numbers are texts in etcd's JSON.
Source: etcd.io, "gRPC gateway" and "API reference"; etcd/api/etcdserverpb/rpc.proto.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import urlsplit

from lab.cluster.clients.etcd_answers import (
    Alarm,
    EtcdMember,
    MemberStatus,
    is_at,
    name_of,
    read_member,
    read_status,
    understood,
)
from lab.cluster.clients.https import ASK_SECONDS, Https, UnreachableError
from lab.cluster.clients.reach import Reach, direct
from lab.cluster.secrets import etcd_client_files
from lab.errors import ClusterError, Remedy
from lab.plan.model import Plan
from lab.scenario.rules import quorum
from lab.store import LabFolder
from lab.waiting import Deadline, map_parallel

CLIENT_PORT = 2379
# A removal is written to the disks of a quorum, and its request waits for an election.
AGREE_SECONDS = 30.0
# etcd's refusal while its members have not been connected for five seconds (server.go, HealthInterval).
SETTLING = "unhealthy cluster"


class Etcd:
    """The etcd of one lab.

    Args:
        folder: the lab's folder; the client certificate is made there when it is missing.
        plan: the lab's plan.
        nodes: the control planes worth asking; all when left out.
        reach: where a node's port is reached from here.
        seconds: how long one member's answer may take.

    Raises:
        ClusterError: the lab's etcd CA is missing or damaged.
    """

    def __init__(
        self,
        folder: LabFolder,
        plan: Plan,
        *,
        nodes: Sequence[str] | None = None,
        reach: Reach = direct,
        seconds: float = ASK_SECONDS,
    ) -> None:
        self._plan = plan
        self._nodes = tuple(n for n in plan.control_planes if nodes is None or n.name in nodes)
        self._https = Https(etcd_client_files(folder), reach, seconds)
        self._seconds = seconds

    def members(self, *, agreed: bool = False) -> tuple[EtcdMember, ...]:
        """The membership, in order of names, as the first member that answers knows it.

        Args:
            agreed: as a quorum knows it; not to be had without one.

        Raises:
            ClusterError: no member answers.
        """
        seconds = max(self._seconds, AGREE_SECONDS) if agreed else self._seconds
        answer = self._first("list its members", "/v3/cluster/member/list", {"linearizable": agreed}, seconds)
        with understood():
            return tuple(sorted((read_member(m) for m in answer.get("members", [])), key=lambda m: (m.name, m.id)))

    def status(self, node: str) -> MemberStatus:
        """The status of the member on one control plane.

        Raises:
            ClusterError: it does not answer, or the plan has no such control plane.
        """
        found = next((n for n in self._plan.control_planes if n.name == node), None)
        if found is None:
            names = ", ".join(n.name for n in self._plan.control_planes)
            raise ClusterError(f"{node} is not a control plane", hint=f"etcd runs on {names}")
        return self._status(found.address, CLIENT_PORT)

    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms that are raised; wants a quorum.

        Raises:
            ClusterError: no member answers, or they have lost their quorum.
        """
        answer = self._first("list its alarms", "/v3/maintenance/alarm", {"action": "GET"}, self._seconds)
        with understood():
            return tuple(Alarm(int(a.get("memberID", 0)), str(a.get("alarm", ""))) for a in answer.get("alarms", []))

    def remove_member(self, name: str) -> bool:
        """Remove a member, by the name of its node. Idempotent.

        Returns:
            Whether there was one to remove.

        Raises:
            ClusterError: as `refuse_loss`, or etcd refuses.
        """
        target, others = self._removable(name)
        if target is not None:
            self._remove(target, others)
        return target is not None

    def refuse_loss(self, name: str) -> None:
        """Make sure that the member of a node can go, if there is one.

        Raises:
            ClusterError: etcd has lost its quorum, or would lose it by this.
        """
        self._removable(name)

    def _removable(self, name: str) -> tuple[EtcdMember | None, list[EtcdMember]]:
        """The member of a node, and those that stay and answer; errors as in `refuse_loss`."""
        known = self.members()
        answering = self._voting(known)
        voters = [m for m in known if not m.learner]
        if len(answering) < quorum(len(voters)):
            raise ClusterError(
                f"etcd has lost its quorum and can remove no member: {len(answering)} of {len(voters)} answer, "
                f"{quorum(len(voters))} are needed",
                details=self._silent(voters, answering),
                hint=(Remedy("start"), " starts the control planes that are off"),
            )
        # The membership above may be old; the decision needs a current one.
        current = self.members(agreed=True)
        target = next((m for m in current if name_of(m, self._plan) == name), None)
        if target is None:
            return None, []
        rest = [m for m in current if m.id != target.id and not m.learner]
        if not rest:
            raise ClusterError(
                f"{name} is etcd's last member", hint=(Remedy("destroy", lab=self._plan.name), " removes the lab")
            )
        well = [m for m in rest if m.id in answering]
        if not target.learner and len(well) < quorum(len(rest)):
            raise ClusterError(
                f"removing {name} would cost etcd its quorum: {len(well)} of the {len(rest)} members left answer, "
                f"{quorum(len(rest))} are needed",
                details=self._silent(rest, answering),
                hint=("start or remove the members that do not answer first: ", Remedy("status"), " shows them"),
            )
        return target, well

    def _remove(self, target: EtcdMember, others: Sequence[EtcdMember]) -> None:
        """Ask a member that stays: the one that goes may end before it has answered."""
        asked = [address for m in others for address in self._addresses(m)]
        body = {"ID": str(target.id)}
        deadline = Deadline.after(AGREE_SECONDS)
        while True:
            try:
                self._first(
                    f"remove {name_of(target, self._plan)}", "/v3/cluster/member/remove", body, AGREE_SECONDS, asked
                )
            except ClusterError as error:
                if deadline.passed or not any(SETTLING in line for line in error.details):
                    raise
            else:
                return
            time.sleep(1)

    def _voting(self, members: Iterable[EtcdMember]) -> set[int]:
        """The ids of the members that answer and have a leader; asked side by side."""

        def ask(member: EtcdMember) -> int | None:
            for address, port in self._addresses(member):
                try:
                    status = self._status(address, port)
                except UnreachableError:
                    continue
                # An address tells where to ask, not who answers there.
                return status.id if status.votes else None
            return None

        return {found for found in map_parallel(ask, list(members)).values() if found is not None}

    def _silent(self, members: Iterable[EtcdMember], answering: set[int]) -> list[str]:
        return [f"{name_of(m, self._plan)} does not answer" for m in members if m.id not in answering]

    def _addresses(self, member: EtcdMember) -> list[tuple[IPv4Address, int]]:
        """Where a member listens: its node's address, or for one that the plan does not know its own word."""
        for node in self._plan.control_planes:
            if member.name == node.name or is_at(member, node):
                return [(node.address, CLIENT_PORT)]
        found = []
        for url in member.client_urls:
            try:
                parts = urlsplit(url)
                found.append((IPv4Address(parts.hostname or ""), parts.port or CLIENT_PORT))
            except ValueError:
                continue
        return found

    def _status(self, address: IPv4Address, port: int) -> MemberStatus:
        deadline = Deadline.after(self._seconds)
        said = self._https.post_json(address, port, "/v3/maintenance/status", {})
        try:
            # A member that has just lost the others answers everything but this.
            health = self._https.get(address, port, "/health", seconds=max(1.0, deadline.left))
        except UnreachableError as error:
            well, why = False, f"health: {error.message}"
        else:
            well, why = health.status == 200 and '"true"' in health.text, health.text
        with understood():
            return read_status(said, healthy=well, why=why)

    def _first(
        self,
        what: str,
        path: str,
        body: dict[str, Any],
        seconds: float,
        asked: Sequence[tuple[IPv4Address, int]] | None = None,
    ) -> dict[str, Any]:
        """The answer of the first member that gives one.

        Raises:
            ClusterError: none does, or all refuse; `details` says why for each.
        """
        failures = []
        refused = False
        for address, port in asked if asked is not None else [(n.address, CLIENT_PORT) for n in self._nodes]:
            try:
                found: dict[str, Any] = self._https.post_json(address, port, path, body, seconds=seconds)
            except UnreachableError as error:
                failures.append(f"{address}: {error.message}")
                refused = refused or error.status != 0
                continue
            return found
        raise ClusterError(
            f"etcd refuses to {what}" if refused else f"no etcd member answers (asked to {what})",
            details=failures,
            hint=(
                Remedy("status", lab=self._plan.name),
                " shows which control planes run; ",
                Remedy("start"),
                " starts the others",
            ),
        )
