"""The scenario: the YAML file a person writes.

This module says which keys exist and what each may hold; `parse_scenario` (in
`lab.scenario.parser`) turns text into a `Scenario` or into one error with every problem.
Descriptions are the text of the generated reference and of the editor schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from lab.components.cni import DEFAULT as DEFAULT_NETWORK
from lab.components.runtime import DEFAULT as DEFAULT_RUNTIME
from lab.scenario.schema import ListOf, MapOf, Section, Value, did_you_mean, key, named
from lab.scenario.sizes import parse_mib

# RFC 1123 label, kept short: it becomes part of host names, volumes and network names.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
# What goes unescaped into libvirt's XML by vagrant-libvirt (templates/domain.xml.erb): CPU models, pools.
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,80}")
# Names of /etc/hosts as Debian and klab write it.
RESERVED_HOSTNAMES = {
    *("localhost", "control-plane-endpoint", "ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix"),
    *("ip6-allnodes", "ip6-allrouters", "ip6-allhosts"),
}
# Groups of the Ansible inventory (lab.render.inventory); a host and a group of one name are one to Ansible.
RESERVED_GROUPS = {"all", "ungrouped", "workers"}
# RFC 1123 host names, with a port; a container runtime has a folder for each mirrored one.
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL}){{0,30}}(?::[0-9]{{1,5}})?")
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){0,10}/?")
MOST_PORT = 65535
# RFC 1918 and RFC 6598: nobody on the internet has these addresses.
PRIVATE_RANGES = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
# The address range that VirtualBox allows for host-only networks without further set-up
# (VirtualBox manual, section 6.7); klab keeps to it so that one scenario fits both providers.
SEAT_RANGE = IPv4Network("192.168.56.0/21")
MOST_ADDONS = 100
MOST_NODES = 57  # 7 control planes and 50 workers

Role = Literal["control-plane", "worker"]
Bootstrap = Literal["full", "prepared", "none"]


def check_name(value: object) -> str:
    """A lab or node name: an RFC 1123 label of at most 40 characters.

    Raises:
        ValueError: it is not.
    """
    value = _text(value)
    if NAME.fullmatch(value) is None:
        raise ValueError(
            f"{named(value)} is not a name: lower-case letters, digits and '-', at most 40, "
            "beginning and ending with a letter or digit"
        )
    if value in RESERVED_HOSTNAMES:
        raise ValueError(f"{value!r} is reserved; choose another name")
    return value


def check_node_name(value: object) -> str:
    """A node's name: as `check_name`, and no group of the Ansible inventory.

    Raises:
        ValueError: it is not.
    """
    if check_name(value) in RESERVED_GROUPS:
        raise ValueError(f"{value!r} is a group of the Ansible inventory; choose another name")
    return check_name(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        quoted = "" if isinstance(value, (dict, list)) else "; put quotes around it"
        raise ValueError(f"needs text, not {named(value)}{quoted}")
    return value


def _filled(value: object) -> str:
    if not _text(value).strip():
        raise ValueError("this text is empty")
    return _text(value)


def _word(value: object) -> str:
    if WORD.fullmatch(_text(value)) is None:
        raise ValueError(f"{named(value)} is not a plain name: letters, digits, '.', '_', '+' and '-', at most 81")
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"needs true or false, not {named(value)}")
    return value


def _network(value: object) -> IPv4Network:
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f"{named(value)} is not a network; write for example 10.244.0.0/16")
    try:
        network = IPv4Network(value)
    except ValueError:
        try:
            meant = IPv4Network(value, strict=False)
        except ValueError:
            raise ValueError(f"{named(value)} is not an IPv4 network; write for example 10.244.0.0/16") from None
        raise ValueError(f"{named(value)} is an address inside a network; did you mean {meant}?") from None
    # Python also reads the host mask of Cisco's access lists there (ipaddress, IPv4Network).
    if value.rpartition("/")[2] not in {str(network.prefixlen), str(network.netmask)}:
        raise ValueError(f"{named(value)} is not in CIDR notation; did you mean {network}?")
    return network


def _address(value: object) -> IPv4Address:
    try:
        return IPv4Address(_text(value))
    except ValueError:
        raise ValueError(f"{named(value)} is not an IPv4 address, such as 192.168.56.11") from None


def _kubernetes_version(value: object) -> str:
    # An unquoted 1.35 is a YAML float; say so instead of guessing which patch is meant.
    if not isinstance(value, str):
        raise ValueError(f'{named(value)} is not a full version; write for example "1.35.4", with quotes')
    return value.removeprefix("v")


def _format_version(value: object) -> int:
    if type(value) is not int or value != 1:
        raise ValueError(
            f"file format version {named(value)} is unknown; this klab reads version: 1 "
            "(the Kubernetes version stands under kubernetes)"
        )
    return value


def check_mirror(value: object) -> str:
    """The URL of a mirror: http or https, a host, perhaps a port and a plain path.

    Raises:
        ValueError: it is not.
    """
    scheme, separator, rest = _text(value).partition("://")
    host, slash, path = rest.partition("/")
    if scheme not in {"http", "https"} or not separator or not _is_host(host) or not _URL_PATH.fullmatch(slash + path):
        raise ValueError(f"{named(value)} is not an address such as http://mirror.example:5000")
    return _text(value)


def _is_host(text: str) -> bool:
    """Whether a text is a host's name, or that and a port."""
    port = text.partition(":")[2]
    return HOST.fullmatch(text) is not None and (not port or 0 < int(port) <= MOST_PORT)


def check_registry(value: object) -> str:
    """A registry's host name, perhaps with a port.

    Raises:
        ValueError: it is not.
    """
    if not _is_host(_text(value)):
        raise ValueError("a mirror's key is a registry's host name, such as docker.io")
    return _text(value)


def _whole(least: int, most: int) -> Value:
    def convert(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"needs a whole number, not {named(value)}")
        if not least <= value <= most:
            raise ValueError(f"{named(value)} is not between {least} and {most}")
        return value

    return Value(convert, {"type": "integer", "minimum": least, "maximum": most})


def _one_of(*words: str) -> Value:
    def convert(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"{named(value)} is not one of {', '.join(words)}{did_you_mean(value, list(words))}")
        return value

    return Value(convert, {"enum": list(words)})


_SIZE_JSON = {
    "type": ["string", "number"],
    "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGTkmgt][Ii]?[Bb]?)?\s*$",
    "exclusiveMinimum": 0,
}
NODE_NAME_KIND = Value(check_node_name, {"type": "string", "pattern": f"^{NAME.pattern}$"})
NAME_KIND = Value(check_name, {"type": "string", "pattern": f"^{NAME.pattern}$"})
TEXT = Value(_text, {"type": "string"})
WORD_KIND = Value(_word, {"type": "string", "pattern": f"^{WORD.pattern}$"})
FILLED = Value(_filled, {"type": "string", "minLength": 1})
FLAG = Value(_flag, {"type": "boolean"})
NETWORK = Value(_network, {"type": "string", "pattern": r"^[0-9.]+/[0-9.]+$"})
ADDRESS = Value(_address, {"type": "string", "format": "ipv4"})
CPUS = _whole(1, 64)
MEMORY = Value(lambda v: parse_mib(v, default_unit="M"), _SIZE_JSON)
DISK = Value(lambda v: -(-parse_mib(v, default_unit="G") // 1024), _SIZE_JSON)


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One node of a scenario that names its nodes one by one. Memory in MiB, disk in GiB."""

    name: str = key(NODE_NAME_KIND, "Host name and Kubernetes node name.")
    role: Role = key(_one_of("control-plane", "worker"), "control-plane or worker.", default="worker")
    address: IPv4Address | None = key(ADDRESS, "Address in the lab's network; chosen when left out.", default=None)
    cpus: int | None = key(CPUS, "Virtual CPUs; the scenario's `cpus` when left out.", default=None)
    memory: int | None = key(MEMORY, "RAM; the scenario's `memory` when left out.", default=None)
    disk: int | None = key(DISK, "Disk size; the scenario's `disk` when left out.", default=None)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """How many nodes of which role; or, under `nodes`, each one by itself."""

    control_planes: int = key(
        _whole(1, 7), "Number of control-plane nodes: 1, 3 or 5; an even number needs `allow_even`.", default=1
    )
    workers: int = key(
        _whole(0, 50), "Number of worker nodes. With none, the control planes run workloads themselves.", default=0
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
        _one_of("all", "first-two"),
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


@dataclass(frozen=True, kw_only=True)
class Kubernetes:
    """Which Kubernetes, on which runtime and network plug-in."""

    version: str = key(
        Value(_kubernetes_version, {"type": "string", "pattern": r"^v?\d+\.\d+\.\d+$"}),
        'Full version, for example "1.35.4".',
        default="1.35.4",
    )
    runtime: str = key(TEXT, "Container runtime.", default=DEFAULT_RUNTIME)
    cni: str = key(TEXT, "Pod network; `none` leaves it to the student.", default=DEFAULT_NETWORK)
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
    allow_public: bool = key(
        FLAG,
        "Accept a range that is not private. This machine then reaches the lab instead of the internet's hosts there.",
        default=False,
    )


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

    version: int = key(Value(_format_version, {"const": 1}), "Version of the file format; always 1.")
    name: str = key(NAME_KIND, "Name of the scenario; the lab's name unless another is given.")
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
        _one_of("full", "prepared", "none"),
        "full: a Ready cluster. prepared: all installed, the student runs kubeadm. none: plain nodes.",
        default="full",
    )
    provider: ProviderOptions = key(
        Section(ProviderOptions), "Settings for libvirt and VirtualBox.", default=ProviderOptions()
    )
    mirrors: Mapping[str, str] = key(
        MapOf(
            Value(check_registry, {"type": "string"}), Value(check_mirror, {"type": "string", "pattern": "^https?://"})
        ),
        "Registries to ask instead of an upstream one: `docker.io: http://mirror:5000`. The lab's own comes first.",
        default_factory=dict,
    )
    addons: tuple[str, ...] = key(
        ListOf(FILLED, MOST_ADDONS),
        "Manifests to apply once the cluster is up: paths relative to the scenario file.",
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
