"""The answers of etcd's members, as klab reads them: the membership, a member's status, alarms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lab.cluster.clients.https import UnreachableError
from lab.plan.model import Node, Plan


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """One member as the membership has it. A member that never started has no name yet and no client URLs."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """The status that one member reports.

    `healthy` is its own judgement: it has a leader, can read, and no alarm is raised; `errors`
    says why not. `leader` is the id of the member it follows, 0 for none. Sizes in bytes;
    `quota` is the size at which etcd refuses to write, 0 where it is unknown.
    """

    id: int
    healthy: bool
    leader: int
    version: str
    revision: int
    raft_index: int
    raft_term: int
    db_size: int
    db_in_use: int
    quota: int
    learner: bool
    errors: tuple[str, ...]

    @property
    def votes(self) -> bool:
        """Whether it takes part in a working cluster."""
        return self.leader != 0 and not self.learner


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that a member has raised: NOSPACE (its database is full) or CORRUPT."""

    member: int
    kind: str


def name_of(member: EtcdMember, plan: Plan) -> str:
    """A member's name; for one that never started, that of the node at its address, else its id."""
    return member.name or next((n.name for n in plan.control_planes if is_at(member, n)), f"{member.id:x}")


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Turn a JSON answer of another shape than etcd's into an error: the answer is a guest's.

    Raises:
        UnreachableError: it has not.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UnreachableError("the server there is not etcd", status=200) from error


def is_at(member: EtcdMember, node: Node) -> bool:
    """Whether a member is the one of this node, by its peers' addresses."""
    return any(_host(url) == str(node.address) for url in member.peer_urls)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # of IPv6, without its bracket
        return None


def read_member(found: dict[str, Any]) -> EtcdMember:
    """A member as the membership lists it; call it within `understood`."""
    return EtcdMember(
        id=int(found.get("ID", 0)),
        name=str(found.get("name", "")),
        peer_urls=tuple(map(str, found.get("peerURLs", ()))),
        client_urls=tuple(map(str, found.get("clientURLs", ()))),
        learner=bool(found.get("isLearner", False)),
    )


def read_status(found: dict[str, Any], *, healthy: bool, why: str) -> MemberStatus:
    """A member's status; its JSON leaves out values that are 0, false or empty."""
    with understood():
        return _status_of(found, healthy=healthy, why=why)


def _status_of(found: dict[str, Any], *, healthy: bool, why: str) -> MemberStatus:
    header = found.get("header", {})
    errors = tuple(str(error).strip() for error in found.get("errors", []))
    return MemberStatus(
        id=int(header.get("member_id", 0)),
        healthy=healthy,
        leader=int(found.get("leader", 0)),
        version=str(found.get("version", "")),
        revision=int(header.get("revision", 0)),
        raft_index=int(found.get("raftIndex", 0)),
        raft_term=int(found.get("raftTerm", 0)),
        db_size=int(found.get("dbSize", 0)),
        db_in_use=int(found.get("dbSizeInUse", 0)),
        quota=int(found.get("dbSizeQuota", 0)),
        learner=bool(found.get("isLearner", False)),
        errors=errors if healthy or errors else (why.strip()[:200],),
    )
