"""The plan: a scenario with everything decided. Pure; `lab.plan.decide` makes it of a scenario."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from lab.components.addons import addons
from lab.components.kubernetes.versions import KubernetesVersion
from lab.errors import NotFound, Remedy
from lab.scenario.model import Bootstrap, Role

API_PORT = 6443
LOAD_BALANCER_PORT = 8443  # HAProxy's own port: 6443 on the VIP would meet the local API server
DNS_OFFSET = 10  # kubeadm's choice: the tenth address of the service range


@dataclass(frozen=True, slots=True)
class Node:
    """One virtual machine, decided. Memory in MiB, disk in GiB."""

    name: str
    role: Role
    cpus: int
    memory: int
    disk: int
    address: IPv4Address
    uuid: str
    mac: str
    management_mac: str

    @property
    def is_control_plane(self) -> bool:
        return self.role == "control-plane"


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """The virtual IP of several API servers: VRRP (RFC 5798) by keepalived, HAProxy behind it."""

    vip: IPv4Address
    port: int
    vrid: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Networks:
    """The lab's network (nodes and host) and the management network that Vagrant needs."""

    name: str
    cidr: IPv4Network
    gateway: IPv4Address
    management_name: str
    management_cidr: IPv4Network


@dataclass(frozen=True, slots=True)
class KubernetesPlan:
    """Kubernetes, decided. `versions` names the version of each component.

    `chosen_proxy_mode` is kube-proxy's mode where the scenario names one. A lab that names none gets its version's,
    and keeps that when it is upgraded.
    """

    versions: KubernetesVersion
    runtime: str
    cni: str
    pod_cidr: IPv4Network
    service_cidr: IPv4Network
    chosen_proxy_mode: str | None = None

    @property
    def proxy_mode(self) -> str:
        """The mode in which kube-proxy begins."""
        return self.chosen_proxy_mode or self.versions.features.proxy_mode

    @property
    def version(self) -> str:
        return self.versions.version

    @property
    def dns_address(self) -> IPv4Address:
        """Where cluster DNS answers."""
        return self.service_cidr[DNS_OFFSET]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a lab but its secrets and the host it will run on.

    `cloud_image`: its box is a distribution's own image, not one that klab built. What the nodes start from then has
    nothing of klab's and nothing of Kubernetes in it, and `kubernetes` is only what the scenario says. `images` are
    those that every node shall have beside the box's, by their whole names, each once.
    """

    name: str
    scenario: str
    seat: int
    box: str
    bootstrap: Bootstrap
    nodes: tuple[Node, ...]
    networks: Networks
    kubernetes: KubernetesPlan
    load_balancer: LoadBalancer | None
    mirrors: tuple[tuple[str, str], ...]
    addons: tuple[str, ...]
    cpu_model: str | None
    pool: str
    linked_clone: bool
    cloud_image: bool = False
    images: tuple[str, ...] = ()

    @property
    def named_addons(self) -> tuple[str, ...]:
        """Those of its add-ons that klab knows by name; the others are manifests."""
        return tuple(each for each in self.addons if each in addons())

    @property
    def box_kubernetes(self) -> str:
        """The version of Kubernetes that its box holds; empty for a cloud image, which holds none."""
        return "" if self.cloud_image else self.kubernetes.version

    @property
    def control_planes(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.is_control_plane)

    @property
    def workers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if not n.is_control_plane)

    @property
    def api_endpoint(self) -> tuple[IPv4Address, int]:
        """Address and port at which clients reach the API server."""
        if self.load_balancer is not None:
            return self.load_balancer.vip, self.load_balancer.port
        return self.control_planes[0].address, API_PORT

    @property
    def cpus(self) -> int:
        """Virtual CPUs of all nodes together."""
        return sum(n.cpus for n in self.nodes)

    @property
    def memory(self) -> int:
        """RAM of all nodes together, MiB."""
        return sum(n.memory for n in self.nodes)

    @property
    def disk(self) -> int:
        """Disk of all nodes together when full, GiB."""
        return sum(n.disk for n in self.nodes)

    def node(self, name: str) -> Node | None:
        return next((n for n in self.nodes if n.name == name), None)

    def known(self, name: str) -> Node:
        """The node that a person names.

        Raises:
            NotFound: the lab has no such node; the hint lists those it has.
        """
        node = self.node(name)
        if node is None:
            names = ", ".join(n.name for n in self.nodes)
            raise NotFound(f"lab {self.name!r} has no node called {name!r}", hint=f"its nodes: {names}")
        return node

    def select(self, names: Sequence[str] | None) -> tuple[Node, ...]:
        """The nodes of these names, in the plan's order; all of them for None.

        Raises:
            NotFound: the lab has no node of such a name.
        """
        for name in names or ():
            self.known(name)
        return tuple(node for node in self.nodes if names is None or node.name in names)


def create_command(which: Sequence[str], name: str | None, seat: int = 0) -> Remedy:
    """What makes a lab, for a hint; `which` are the words behind klab create that say which."""
    words = [*which, *(["--name", name] if name else []), *(["--seat", str(seat)] if seat else [])]
    return Remedy("create", options=tuple(map(shlex.quote, words)))


def import_command(file: str, name: str | None = None) -> Remedy:
    """What makes a lab from a bundle, for a hint."""
    words = [file, *(["--name", name] if name else [])]
    return Remedy("import", options=tuple(map(shlex.quote, words)))
