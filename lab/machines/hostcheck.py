"""What the host has, and whether a lab fits into it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from lab import process
from lab.plan import Plan
from lab.store import Home

MEMINFO = Path("/proc/meminfo")
# What a node's own QEMU process needs beside the guest's RAM, MiB.
OVERHEAD = 64
# Disks grow as they are written: a node begins with little, a cluster's first day needs about this, GiB.
DISK_PER_NODE = 2.0


@dataclass(frozen=True, slots=True)
class Route:
    """A network that the host reaches, and the interface it goes through."""

    network: IPv4Network
    interface: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Available RAM in MiB, CPUs, free disk in GiB where klab keeps its disks (`disk_path`), and routes."""

    memory: int
    cpus: int
    disk: float
    disk_path: Path
    routes: tuple[Route, ...]


def host_facts(home: Home) -> HostFacts:
    """Look at the host. Routes are those of the network the process is in.

    Raises:
        HostError: the program `ip` is missing.
    """
    folder = _first_existing(home.root)
    stat = os.statvfs(folder)
    return HostFacts(
        memory=_available_memory(MEMINFO.read_text()),
        cpus=len(os.sched_getaffinity(0)),
        disk=stat.f_bavail * stat.f_frsize / 1024**3,
        disk_path=folder,
        routes=parse_routes(process.run(["ip", "-json", "-4", "route"], timeout=30).stdout),
    )


def check_fits(plan: Plan, facts: HostFacts, own_interfaces: Sequence[str] = ()) -> list[str]:
    """Everything that keeps a lab from running on this host, one line each; empty when it fits.

    CPUs may be shared: nodes together may have more than the host, since a lab is idle most
    of the time. A single node may not have more than the host.

    Args:
        plan: the lab.
        facts: the host.
        own_interfaces: the lab's own bridges, when its networks exist already.
    """
    problems = []
    needed = plan.memory + OVERHEAD * len(plan.nodes)
    if needed > facts.memory:
        problems.append(f"needs {_gib(needed)} GiB RAM, {_gib(facts.memory)} GiB are free")
    disk = DISK_PER_NODE * len(plan.nodes)
    if disk > facts.disk:
        problems.append(f"needs {disk:.1f} GiB disk to begin with, {facts.disk:.1f} GiB are free in {facts.disk_path}")
    problems += [
        f"{node.name} has {node.cpus} CPUs, this host has {facts.cpus}" for node in plan.nodes if node.cpus > facts.cpus
    ]
    for what, network in (("network", plan.networks.cidr), ("management network", plan.networks.management_cidr)):
        problems += [
            f"the lab's {what} {network} overlaps the host's route to {route.network} through {route.interface}; "
            "another --seat or network.cidr avoids it"
            for route in facts.routes
            if route.interface not in own_interfaces and route.network.overlaps(network)
        ]
    return problems


def warnings(plan: Plan, facts: HostFacts) -> list[str]:
    """What does not keep a lab from running but will be felt, one line each."""
    cpus = sum(node.cpus for node in plan.nodes)
    if cpus > 2 * facts.cpus:
        return [f"the nodes have {cpus} CPUs together, this host has {facts.cpus}: expect waiting"]
    return []


def parse_routes(text: str) -> tuple[Route, ...]:
    """The routes in what `ip -json route` prints; the default route leads everywhere and overlaps nothing."""
    return tuple(
        Route(IPv4Network(entry["dst"]), entry.get("dev", "?"))
        for entry in json.loads(text or "[]")
        if entry.get("dst", "default") != "default"
    )


def _available_memory(text: str) -> int:
    """MiB that can be used without swapping: MemAvailable in /proc/meminfo (proc_meminfo(5))."""
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _gib(mebibytes: int) -> str:
    return f"{mebibytes / 1024:.1f}"


def _first_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
