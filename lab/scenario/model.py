"""The scenario: the YAML file a person writes.

This module defines which keys exist and what each may hold; `parse_scenario` (in
`lab.scenario.parser`) turns text into a `Scenario` or into one error with every problem.
Descriptions are the text of the generated reference and of the editor schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from lab.components.cni import DEFAULT as DEFAULT_NETWORK
from lab.components.cni import networks
from lab.components.kubernetes import DEFAULT as DEFAULT_VERSION
from lab.components.kubernetes.proxy import MODES
from lab.components.runtime import DEFAULT as DEFAULT_RUNTIME
from lab.components.runtime import runtimes
from lab.scenario.kinds import (
    ADDRESS,
    CPUS,
    DISK,
    FILLED,
    FLAG,
    FORMAT_VERSION,
    KUBERNETES_VERSION,
    MEMORY,
    MIRROR,
    NAME_KIND,
    NETWORK,
    NODE_NAME_KIND,
    REGISTRY,
    TEXT,
    WORD_KIND,
    one_of,
    whole,
)
from lab.scenario.references import IMAGE
from lab.scenario.schema import ListOf, MapOf, Section, ShortOr, key

# RFC 1918 and RFC 6598: no host on the internet has these addresses.
PRIVATE_RANGES = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
# The address range that VirtualBox allows for host-only networks without further set-up
# (VirtualBox manual, section 6.7); klab keeps to it so that one scenario fits both providers.
SEAT_RANGE = IPv4Network("192.168.56.0/21")
# Away from what libvirt (192.168.122.0/24), Docker (172.17.0.0/16 and on) and home routers take by default.
MANAGEMENT_RANGE = IPv4Network("172.28.0.0/14")
MOST_ADDONS = 100
MOST_IMAGES = 200
MOST_NODES = 57  # 7 control planes and 50 workers


def is_private(network: IPv4Network) -> bool:
    """Whether no host on the internet has an address of a network."""
    return any(network.subnet_of(each) for each in PRIVATE_RANGES)


Role = Literal["control-plane", "worker"]
Bootstrap = Literal["full", "prepared", "none"]


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One node of a scenario that names its nodes one by one. Memory in MiB, disk in GiB."""

    name: str = key(NODE_NAME_KIND, "Host name and Kubernetes node name.")
    role: Role = key(one_of("control-plane", "worker"), "control-plane or worker.", default="worker")
    address: IPv4Address | None = key(ADDRESS, "Address in the lab's network; chosen when left out.", default=None)
    cpus: int | None = key(CPUS, "Virtual CPUs; the scenario's `cpus` when left out.", default=None)
    memory: int | None = key(MEMORY, "RAM; the scenario's `memory` when left out.", default=None)
    disk: int | None = key(DISK, "Disk size; the scenario's `disk` when left out.", default=None)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How many nodes of which role; or, under `nodes`, each one by itself."""

    control_planes: int = key(
        whole(1, 7), "Number of control-plane nodes: 1, 3 or 5; an even number needs `allow_even`.", default=1
    )
    workers: int = key(
        whole(0, 50), "Number of worker nodes. With none, the control planes run workloads themselves.", default=0
    )
    nodes: tuple[NodeSpec, ...] | None = key(
        ListOf(Section(NodeSpec), MOST_NODES),
        "The nodes one by one, with names, addresses and sizes of their own; instead of the two counts.",
        default=None,
    )
    allow_even: bool = key(
        FLAG,
        "Accept an even number of control planes, which tolerates no more failures than one fewer.",
        default=False,
    )
    vip: IPv4Address | None = key(
        ADDRESS, "Virtual IP of the API servers when there are several; chosen when left out.", default=None
    )
    load_balancers: Literal["all", "first-two"] = key(
        one_of("all", "first-two"),
        "Which control planes run HAProxy and keepalived when there are several.",
        default="all",
    )

    @property
    def roles(self) -> tuple[Role, ...]:
        """The role of each node, in order."""
        if self.nodes is not None:
            return tuple(node.role for node in self.nodes)
        planes: list[Role] = ["control-plane"] * self.control_planes
        workers: list[Role] = ["worker"] * self.workers
        return (*planes, *workers)


def _counts_or_nodes(given: Mapping[str, object]) -> str | None:
    if "nodes" in given and given.keys() & {"control_planes", "workers"}:
        return "give either control_planes and workers, or nodes, not both"
    return None


_RUNTIMES = (
    f"Container runtime: {', '.join(f'`{name}` ({each.summary})' for name, each in runtimes().items())}; "
    "of these the box must hold it."
)
_PROXY_MODES = (
    f"How kube-proxy makes services: {', '.join(f'`{name}` ({each.summary})' for name, each in MODES.items())}; "
    "when left out, nftables from 1.31 on, and iptables before."
)
_NETWORKS = f"Pod network: {', '.join(f'`{name}` ({each.summary})' for name, each in networks().items())}."


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """Which Kubernetes, on which runtime and network plug-in."""

    version: str = key(
        KUBERNETES_VERSION,
        'Full version, for example "1.35.4"; or "1.35", its newest patch that klab knows.',
        default=DEFAULT_VERSION,
    )
    runtime: str = key(TEXT, _RUNTIMES, default=DEFAULT_RUNTIME)
    cni: str = key(TEXT, _NETWORKS, default=DEFAULT_NETWORK)
    proxy_mode: str | None = key(one_of(*MODES), _PROXY_MODES, default=None)
    pod_cidr: IPv4Network = key(
        NETWORK, "Range of pod addresses, 10.244.0.0/16 when left out.", default=IPv4Network("10.244.0.0/16")
    )
    service_cidr: IPv4Network = key(
        NETWORK, "Range of service addresses, 10.96.0.0/12 when left out.", default=IPv4Network("10.96.0.0/12")
    )


@dataclass(frozen=True, kw_only=True)
class LabNetwork:
    """The network that the nodes share with the host."""

    cidr: IPv4Network = key(
        NETWORK,
        "Range of node addresses, 192.168.56.0/24 when left out; moved by the seat's number. "
        "VirtualBox allows 192.168.56.0/21.",
        default=IPv4Network("192.168.56.0/24"),
    )
    management: IPv4Network = key(
        NETWORK,
        f"Range from which each lab's second network is taken, a /24 for Vagrant; {MANAGEMENT_RANGE} when left out. "
        "VirtualBox has none.",
        default=MANAGEMENT_RANGE,
    )
    allow_public: bool = key(
        FLAG,
        "Accept a range that is not private. This machine then reaches the lab instead of the internet's hosts there.",
        default=False,
    )


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A mirror of a registry."""

    url: str = key(MIRROR, "Its address; images are asked for below its path.")
    ca: str | None = key(
        FILLED, "File beside the scenario with the CA that signs the mirror's certificate, in PEM.", default=None
    )
    login: str | None = key(FILLED, "File beside the scenario with `USER:PASSWORD` in one line.", default=None)


def _secure_or_bare(given: Mapping[str, object]) -> str | None:
    if str(given.get("url", "")).startswith("http://"):
        for name, why in (("login", "would send its password in clear"), ("ca", "is for a mirror's certificate")):
            if name in given:
                return f"{name} {why}; the mirror's url must begin with https://"
    return None


@dataclass(frozen=True, kw_only=True)
class LibvirtOptions:
    """What only libvirt understands."""

    cpu_model: str | None = key(
        WORD_KIND,
        "A named CPU model; by default the one klab finds safe for saving RAM on this host.",
        default=None,
    )
    pool: str = key(WORD_KIND, "Storage pool for the lab's disks.", default="default")


@dataclass(frozen=True, kw_only=True)
class VirtualBoxOptions:
    """What only VirtualBox understands."""

    linked_clone: bool = key(FLAG, "Share the box's disk among the nodes instead of copying it.", default=True)


@dataclass(frozen=True, kw_only=True)
class ProviderOptions:
    """Settings for one provider each."""

    libvirt: LibvirtOptions = key(Section(LibvirtOptions), "For libvirt.", default=LibvirtOptions())
    virtualbox: VirtualBoxOptions = key(Section(VirtualBoxOptions), "For VirtualBox.", default=VirtualBoxOptions())


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A scenario file, version 1. Memory in MiB, disk in GiB."""

    version: int = key(FORMAT_VERSION, "Version of the file format; always 1.")
    name: str = key(NAME_KIND, "Name of the scenario; the lab's name, with `-` for dots, unless another is given.")
    description: str = key(TEXT, "One line for `klab scenarios`.", default="")
    topology: Topology = key(Section(Topology, _counts_or_nodes), "The nodes.", default=Topology())
    cpus: int = key(CPUS, "Virtual CPUs of each node; kubeadm asks for 2.", default=2)
    memory: int = key(MEMORY, "RAM of each node; a number alone counts MiB.", default=2048)
    disk: int = key(
        DISK, "Disk of each node; a number alone counts GiB. Takes only the space that is used.", default=20
    )
    box: str = key(TEXT, "The disk image the nodes start from.", default="debian-13")
    kubernetes: Kubernetes = key(
        Section(Kubernetes), "Version, runtime, network plug-in and address ranges.", default=Kubernetes()
    )
    network: LabNetwork = key(Section(LabNetwork), "The network between nodes and host.", default=LabNetwork())
    bootstrap: Bootstrap = key(
        one_of("full", "prepared", "none"),
        "full: a Ready cluster. prepared: all installed, the student runs kubeadm. none: plain nodes.",
        default="full",
    )
    provider: ProviderOptions = key(
        Section(ProviderOptions), "Settings for libvirt and VirtualBox.", default=ProviderOptions()
    )
    mirrors: Mapping[str, Mirror] = key(
        MapOf(REGISTRY, ShortOr(Section(Mirror, _secure_or_bare))),
        "Registries to ask instead of an upstream one: `docker.io: http://mirror:5000`, or keys below it: "
        "`url`, and files beside the scenario: `ca` (its CA, in PEM) and `login` (`USER:PASSWORD`). "
        "`_default` is for all registries that are not named. The lab's own comes first.",
        default_factory=dict,
    )
    addons: tuple[str, ...] = key(
        ListOf(FILLED, MOST_ADDONS),
        "What to bring once the cluster is up: the names of add-ons that klab knows (`klab addon list`), and manifests "
        "of your own, as paths relative to the scenario file.",
        default=(),
    )
    images: tuple[str, ...] = key(
        ListOf(IMAGE, MOST_IMAGES),
        "Images that every node shall have beside those of its box, such as `redis:8.2` or "
        "`ghcr.io/team/app@sha256:...`; from what this machine keeps (`klab image fetch`), or from their registry.",
        default=(),
    )


SCENARIO = Section(Scenario)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a scenario file, for editors; it knows shapes, `klab validate` knows the rest."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "klab scenario, version 1",
        "description": "A lab of virtual machines that run Kubernetes.",
        **SCENARIO.schema(),
    }
