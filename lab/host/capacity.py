"""What the host has, and whether a lab fits into it."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import PurePath
from typing import Any

from lab import process
from lab.errors import HostError
from lab.host.host import Host
from lab.plan.model import Node, Plan
from lab.scenario.model import is_private

_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
DISCARD_PORT = 9  # RFC 863
ARP_SECONDS = 2.0
MEMINFO = "/proc/meminfo"
RESOLV_CONF = "/etc/resolv.conf"
# What a node's own QEMU process needs beside the guest's RAM, MiB.
OVERHEAD = 64
# Disks grow as they are written: a node begins with little, a cluster's first day needs about this, GiB.
DISK_PER_NODE = 2.0
# The networks of a lab, and what gives it another.
NETWORK, MANAGEMENT = "network", "management network"
_AVOIDS = {NETWORK: "another --seat or network.cidr", MANAGEMENT: "another --seat or network.management"}


@dataclass(frozen=True, slots=True)
class Route:
    """A network that the host reaches, or reaches on purpose not (ip-route(8), TYPE).

    interface: what it goes through; several are divided by commas, and there is none where packets are dropped.
    connected: the interface itself has an address in the network, and the network's hosts are its neighbours.
    """

    network: IPv4Network
    interface: str
    connected: bool = False

    def __str__(self) -> str:
        return f"{self.network} through {self.interface}" if self.interface else f"{self.network}, which drops packets"


@dataclass(frozen=True, slots=True)
class LabNetworks:
    """The networks that a lab takes on its host, by what each is for, and the interfaces that are theirs already."""

    ranges: Mapping[str, IPv4Network]
    interfaces: tuple[str, ...] = ()

    def of_others(self, routes: Sequence[Route]) -> list[Route]:
        """Those of a host's routes that are not the lab's own."""
        return [route for route in routes if route.interface not in self.interfaces]

    @classmethod
    def bridged(cls, plan: Plan) -> LabNetworks:
        """Those of a lab whose provider makes a bridge for each network of the plan, and keeps none."""
        return cls({NETWORK: plan.networks.cidr, MANAGEMENT: plan.networks.management_cidr})


@dataclass(frozen=True, slots=True)
class DiskRoom:
    """Space for files: the folder they lie in, how many bytes are free there, and what puts them on a larger disk."""

    folder: PurePath
    free: int
    elsewhere: str

    @property
    def gib(self) -> float:
        return self.free / 1024**3

    def __str__(self) -> str:
        return f"{self.gib:.1f} GiB are free in {self.folder}"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Available RAM in MiB, CPUs, space where the machines' disks will lie, and routes.

    `needed` are the addresses that the host itself cannot do without: its gateways and its DNS servers.
    """

    memory: int
    cpus: int
    disks: DiskRoom
    routes: tuple[Route, ...]
    needed: tuple[IPv4Address, ...] = ()


def home_room(host: Host) -> DiskRoom:
    """The space in KLAB_HOME of a host; raises HostError where it does not answer."""
    return DiskRoom(*host.disk_free(host.home), elsewhere="KLAB_HOME moves klab to another disk")


def host_facts(host: Host, disks: DiskRoom) -> HostFacts:
    """Look at a host. Routes are those of the network that its programs are in.

    Args:
        host: the host.
        disks: where the machines' disks will lie there; the provider knows.

    Raises:
        HostError: the program `ip` is missing, or the host does not answer.
    """
    routes = host.run(["ip", "-json", "-4", "route"], timeout=30).stdout
    return HostFacts(
        memory=_available_memory(host.read(MEMINFO)),
        cpus=host.cpus(),
        disks=disks,
        routes=parse_routes(routes),
        needed=_needed(host, routes),
    )


def check_fits(plan: Plan, facts: HostFacts, networks: LabNetworks) -> list[str]:
    """Everything that keeps a lab from running on this host, one line each; empty when it fits.

    CPUs may be shared: nodes together may have more than the host, since a lab is idle most
    of the time. A single node may not have more than the host.

    Args:
        plan: the lab.
        facts: the host.
        networks: what its provider takes for it.
    """
    problems = check_room(plan.nodes, facts)
    for what, network in networks.ranges.items():
        problems += [
            f"the lab's {what} {network} overlaps the host's route to {route}; {_AVOIDS[what]} avoids it"
            for route in networks.of_others(facts.routes)
            if _clash(network, route)
        ]
        problems += [
            f"the lab's {what} {network} holds {address}, which this machine needs as its gateway or DNS server; "
            f"{_AVOIDS[what]} avoids it"
            for address in facts.needed
            if address in network
        ]
    return problems


def _clash(lab: IPv4Network, route: Route) -> bool:
    """Whether lab and host cannot both have their packets.

    The route to the lab is more specific than one to a wider network, and wins. That is of no matter, unless hosts of
    the wider network are neighbours: those that have an address of the lab's could not be reached any more.
    """
    return route.network.subnet_of(lab) or (route.connected and lab.subnet_of(route.network))


def check_room(nodes: Sequence[Node], facts: HostFacts) -> list[str]:
    """What keeps these machines from running beside what runs now, one line each."""
    problems = []
    needed = sum(node.memory for node in nodes) + OVERHEAD * len(nodes)
    if needed > facts.memory:
        problems.append(f"needs {_gib(needed)} GiB RAM, {_gib(facts.memory)} GiB are free")
    disk = DISK_PER_NODE * len(nodes)
    if disk > facts.disks.gib:
        problems.append(f"needs {disk:.1f} GiB disk to begin with, {facts.disks}; {facts.disks.elsewhere}")
    return problems + [
        f"{node.name} has {node.cpus} CPUs, this host has {facts.cpus}" for node in nodes if node.cpus > facts.cpus
    ]


def answering(address: IPv4Address) -> str | None:
    """Who answers at an address, seen from here: "this machine", a MAC address, or None for no one.

    Judged by ARP, which no firewall keeps back: a datagram is sent, and the kernel's neighbour
    table then shows whether a machine claimed the address. Without a route of its own no network
    of this machine has the address, and nothing is sent.
    """
    from lab.waiting import Deadline, poll  # late: tenacity takes a while to import, and `klab plan` needs none of it

    asked = process.run(["ip", "-json", "route", "get", str(address)], timeout=30, check=False)
    try:
        way = dict(next(iter(json.loads(asked.stdout or "[]")), {}))
    except _MALFORMED as error:
        raise _unreadable(error) from error
    if way.get("type") == "local":
        return "this machine"
    if not way or "gateway" in way:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        with contextlib.suppress(OSError):
            probe.sendto(b"", (str(address), DISCARD_PORT))
    shown = ["ip", "-json", "neigh", "show", str(address)]
    deadline = Deadline.after(ARP_SECONDS)
    found: list[str] = []

    def resolved() -> bool:
        try:
            entries = json.loads(process.run(shown, timeout=30, check=False).stdout or "[]")
            found[:] = [str(e["lladdr"]) for e in entries if "lladdr" in e and "FAILED" not in e.get("state", [])]
        except _MALFORMED as error:
            raise _unreadable(error) from error
        return bool(found)

    poll(resolved, deadline, every=0.2)
    return found[0] if found else None


def warnings(plan: Plan, facts: HostFacts, networks: LabNetworks) -> list[str]:
    """What does not keep a lab from running but will be felt, one line each; arguments as `check_fits`."""
    cpus = sum(node.cpus for node in plan.nodes)
    felt = [f"the nodes have {cpus} CPUs together, this host has {facts.cpus}: expect waiting"]
    # A wide route to more than private addresses leads everywhere, as the default route and a VPN's halves of it do.
    return (felt if cpus > 2 * facts.cpus else []) + [
        f"the lab's {what} {network} lies within the host's route to {route}: while the lab exists, what has these "
        f"addresses there cannot be reached; {_AVOIDS[what]} avoids it"
        for what, network in networks.ranges.items()
        for route in networks.of_others(facts.routes)
        if route.interface and is_private(route.network) and network.subnet_of(route.network)
        if not _clash(network, route)
    ]


def parse_routes(text: str) -> tuple[Route, ...]:
    """The routes in what `ip -json route` prints; the default route leads everywhere and overlaps nothing."""
    try:
        return tuple(_route(entry) for entry in json.loads(text or "[]") if entry.get("dst", "default") != "default")
    except _MALFORMED as error:
        raise _unreadable(error) from error


def _route(entry: Mapping[str, Any]) -> Route:
    ways = [entry, *entry.get("nexthops", ())]
    return Route(
        IPv4Network(entry["dst"]),
        ", ".join(str(way["dev"]) for way in ways if "dev" in way and entry.get("type", "unicast") == "unicast"),
        connected=(entry.get("protocol"), entry.get("scope")) == ("kernel", "link"),
    )


def _unreadable(error: Exception) -> HostError:
    return HostError(
        "what the program ip prints cannot be read",
        details=[f"{type(error).__name__}: {error}"],
        hint="ip -json -4 route shows it; klab needs the ip of iproute2",
    )


def _needed(host: Host, routes: str) -> tuple[IPv4Address, ...]:
    """Gateways, and DNS servers where there is a way out: a private libvirt's network has none."""
    gateways = parse_gateways(routes)
    if not gateways:
        return ()
    with contextlib.suppress(HostError):
        return (*gateways, *parse_resolvers(host.read(RESOLV_CONF)))
    return gateways


def parse_gateways(text: str) -> tuple[IPv4Address, ...]:
    """The default gateways in what `ip -json route` prints."""
    try:
        entries = [entry for entry in json.loads(text or "[]") if entry.get("dst", "default") == "default"]
        return tuple(IPv4Address(entry["gateway"]) for entry in entries if "gateway" in entry)
    except _MALFORMED as error:
        raise _unreadable(error) from error


def parse_resolvers(text: str) -> tuple[IPv4Address, ...]:
    """The IPv4 DNS servers of resolv.conf(5), those on this machine apart."""
    found = []
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        with contextlib.suppress(ValueError):
            if word == "nameserver" and not (address := IPv4Address(rest.strip())).is_loopback:
                found.append(address)
    return tuple(found)


def _available_memory(text: str) -> int:
    """MiB that can be used without swapping: MemAvailable in /proc/meminfo (proc_meminfo(5))."""
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _gib(mebibytes: int) -> str:
    return f"{mebibytes / 1024:.1f}"
