"""What every component is told of the lab that it is a part of. A plan has this shape."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple, Protocol

# The NIC of the lab's own network on each node; eth0 is Vagrant's.
LAB_INTERFACE = "eth1"

# Major and minor number of Kubernetes, such as (1, 35).
Minor = tuple[int, int]


class File(NamedTuple):
    """A file on a node, owned by root."""

    path: str
    content: str
    mode: str = "0644"


class Node(Protocol):
    """One node of a lab."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> IPv4Address: ...
    @property
    def is_control_plane(self) -> bool: ...


class Networks(Protocol):
    """The lab's own network."""

    @property
    def cidr(self) -> IPv4Network: ...


class Versions(Protocol):
    """The version of a lab's Kubernetes, and of what goes with it."""

    @property
    def minor(self) -> Minor: ...
    def image(self, component: str) -> str: ...


class Kubernetes(Protocol):
    """The versions and the ranges of a lab's cluster."""

    @property
    def versions(self) -> Versions: ...
    @property
    def pod_cidr(self) -> IPv4Network: ...


class Cluster(Protocol):
    """A lab, as far as a component may know it."""

    @property
    def nodes(self) -> Sequence[Node]: ...
    @property
    def networks(self) -> Networks: ...
    @property
    def kubernetes(self) -> Kubernetes: ...
    @property
    def api_endpoint(self) -> tuple[IPv4Address, int]: ...
