"""Rules about a scenario as a whole: unknown names, sizes that are too small, ranges that overlap.

Each rule yields findings: the places it looked at, the place to report first, and what is
wrong. A finding that rests on a value which could not be read is left out by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network

from lab.components.cni import LEFT_OUT, networks
from lab.components.kubernetes import proxy
from lab.components.kubernetes.versions import KubernetesVersion
from lab.components.runtime import runtimes
from lab.components.runtime.base import Mirror
from lab.scenario.catalog import Catalog
from lab.scenario.model import PRIVATE_RANGES, Scenario, is_private
from lab.scenario.schema import Loc, did_you_mean
from lab.scenario.sizes import human

POD_PREFIX_PER_NODE = 24  # kube-controller-manager's default --node-cidr-mask-size
POD_PREFIX_WIDEST = POD_PREFIX_PER_NODE - 16  # ... which it wants within 16 bits of the whole range
SERVICE_PREFIX = range(12, 29)  # kube-apiserver: at most 2^20 addresses; kubeadm: at least 10
NETWORK_PREFIX = range(16, 29)
MANAGEMENT_PREFIX = 24  # of a lab's management network (lab.plan.decide)
# kubeadm refuses a control plane with less (cmd/kubeadm/app/preflight: ControlPlaneMem, ControlPlaneNumCPU).
KUBEADM_MIN_MIB = 1700
KUBEADM_MIN_CPUS = 2
NODE_MIN_MIB = 512
MOST_CONTROL_PLANES = 7
DISK_MIN_GIB = 6
DISK_MAX_GIB = 2047  # the box's partition table (DOS) ends at 2 TiB

Finding = tuple[tuple[Loc, ...], str]


def quorum(members: int) -> int:
    """How many of so many etcd members must answer."""
    return members // 2 + 1


def no_better(planes: int) -> str:
    """Why an even number of control planes is no better than one fewer."""
    return (
        f"{planes} control planes need {quorum(planes)} of them for a quorum and survive the loss of "
        f"{planes - quorum(planes)}, no more than {planes - 1} would"
    )


def too_many(planes: int) -> str:
    """Why so many control planes are refused."""
    return f"{planes} control planes; etcd advises at most {MOST_CONTROL_PLANES}"


def contradictions(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    """Every finding in a scenario whose keys are each sound by themselves."""
    yield from _unknown(s, catalog)
    yield from _box(s, catalog)
    yield from _cloud_image(s, catalog)
    yield from _runtime(s, catalog)
    yield from _etcd(s, catalog)
    yield from _proxy_mode(s, catalog)
    yield from _topology(s)
    yield from _sizes(s, catalog)
    yield from _ranges(s)
    yield from _room(s)
    yield from _addresses(s)
    if s.addons and s.bootstrap != "full":
        yield (("addons",), ("bootstrap",)), f"add-ons need a running cluster; bootstrap is {s.bootstrap}"
    if s.images and s.bootstrap == "none":
        yield (("images",), ("bootstrap",)), "plain machines have no registry for images; bootstrap is none"


def _unknown(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    candidates: tuple[tuple[Loc, str, list[str]], ...] = (
        (("kubernetes", "version"), catalog.full_version(s.kubernetes.version), list(catalog.kubernetes)),
        (("kubernetes", "runtime"), s.kubernetes.runtime, list(runtimes())),
        (("kubernetes", "cni"), s.kubernetes.cni, list(networks())),
        (("box",), s.box, list(catalog.boxes)),
    )
    for at, given, known in candidates:
        if given in known:
            continue
        there = f"{', '.join(known)}{_proposal(given, known, at)}"
        if at == ("kubernetes", "cni") and given in LEFT_OUT:
            yield (at,), f"klab has no pod network {given}: {LEFT_OUT[given]}"
        else:
            yield (at,), f"{given[:60]!r} is not known; known are: {there}"


def _proposal(given: str, known: list[str], at: Loc) -> str:
    """The closest of the known words; of versions the newest of the same minor version comes first."""
    minor = ".".join(given.split(".")[:2])
    same = [each for each in known if each.startswith(f"{minor}.")] if at == ("kubernetes", "version") else []
    return f"; did you mean {same[-1]}?" if same else did_you_mean(given, known)


def _box(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    """What its box does not have, where another box has all that the scenario asks for.

    What no box has is not the scenario's fault; `lab.plan.needs` tells of it.
    """
    own, version = catalog.recipes.get(s.box), catalog.full_version(s.kubernetes.version)
    if own is None or s.box in catalog.images:
        return
    wanted = {"version": version, "runtime": s.kubernetes.runtime, "cni": s.kubernetes.cni}
    lacks = [key for key, given in wanted.items() if given not in _held(own, key)]
    others = [
        box for box, each in catalog.recipes.items() if all(given in _held(each, key) for key, given in wanted.items())
    ]
    for key in lacks if others else ():
        kind = {"version": "Kubernetes", "runtime": "runtime", "cni": "pod network"}[key]
        yield (
            (("kubernetes", key), ("box",)),
            f"the box {s.box} has no {kind} {wanted[key]}, it has {', '.join(_held(own, key))}; "
            f"write box: {' or '.join(others)}",
        )


def _cloud_image(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    """A cluster on another distribution's image, in which nothing of Kubernetes is."""
    image = catalog.images.get(s.box)
    if image is not None and s.bootstrap != "none":
        others = [box for box in catalog.boxes if box not in catalog.images]
        yield (
            (("bootstrap",), ("box",)),
            f"the box {s.box} is the cloud image of {image.system}, in which nothing of Kubernetes is: write "
            f"bootstrap: none, and the lesson installs it; or box: {' or '.join(others)} for a cluster of klab's",
        )


def _held(catalog: Catalog, key: str) -> Collection[str]:
    held = {"version": catalog.kubernetes, "runtime": catalog.runtimes, "cni": catalog.cnis}
    return held[key]


def _runtime(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    """What the runtime cannot do; one that klab does not know, or a version, has been told."""
    kubernetes = s.kubernetes
    version = _version(s, catalog)
    if version is None or kubernetes.runtime not in runtimes():
        return
    containers = runtimes()[kubernetes.runtime]
    if refusal := containers.refusal(version.minor):
        yield (("kubernetes", "runtime"), ("kubernetes", "version")), refusal
    mirrors = [Mirror(name, each.url, each.ca or "", each.login or "") for name, each in s.mirrors.items()]
    if refusal := containers.mirrors_refusal(mirrors):
        yield (("mirrors",), ("kubernetes", "runtime")), refusal


def _version(s: Scenario, catalog: Catalog) -> KubernetesVersion | None:
    return catalog.kubernetes.get(catalog.full_version(s.kubernetes.version))


def _etcd(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    """Several control planes form etcd at once by one of kubeadm's patches (lab.render.kubeadm)."""
    version = _version(s, catalog)
    several = s.topology.roles.count("control-plane") > 1
    if version is not None and several and s.bootstrap == "full" and not version.features.patches:
        yield (
            (("kubernetes", "version"), ("topology",), ("bootstrap",)),
            f"kubeadm of {version.version} cannot make several control planes at once: 1.22 or newer is needed",
        )


def _proxy_mode(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    version, mode = _version(s, catalog), s.kubernetes.proxy_mode
    if version is not None and mode is not None and (refusal := proxy.refusal(mode, version.minor)):
        yield (("kubernetes", "proxy_mode"), ("kubernetes", "version")), refusal


def _topology(s: Scenario) -> Iterator[Finding]:
    planes = s.topology.roles.count("control-plane")
    at: Loc = ("topology", "control_planes" if s.topology.nodes is None else "nodes")
    if planes == 0:
        yield (at,), "no node has the role control-plane; a cluster needs at least one"
    if planes > MOST_CONTROL_PLANES:
        yield (at,), too_many(planes)
    if planes and planes % 2 == 0 and not s.topology.allow_even:
        yield (
            (at, ("topology", "allow_even")),
            f"{no_better(planes)}; use {planes - 1} or {planes + 1}, or say allow_even: true",
        )
    if s.topology.vip is not None and planes == 1:
        yield (("topology", "vip"), at), "a virtual IP needs several control planes; there is one"
    first: dict[str, int] = {}
    for i, node in enumerate(s.topology.nodes or ()):
        if first.setdefault(node.name, i) != i:
            yield (("topology", "nodes", i, "name"),), f"two nodes are called {node.name}"


def _sizes(s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    if s.topology.nodes is None:
        for role in dict.fromkeys(s.topology.roles):
            yield from _size((), role, s, s.cpus, s.memory)
        yield from _disk((), s.disk, s, catalog)
    for i, n in enumerate(s.topology.nodes or ()):
        at = ("topology", "nodes", i)
        yield from _size(at, n.role, s, n.cpus or s.cpus, n.memory or s.memory)
        yield from _disk(at, n.disk or s.disk, s, catalog)


def _size(at: Loc, role: str, s: Scenario, cpus: int, memory: int) -> Iterator[Finding]:
    kubeadm = role == "control-plane" and s.bootstrap != "none"
    if kubeadm and cpus < KUBEADM_MIN_CPUS:
        yield (
            ((*at, "cpus"),),
            f"kubeadm refuses a control plane with fewer than {KUBEADM_MIN_CPUS} CPUs; given: {cpus}",
        )
    least = KUBEADM_MIN_MIB if kubeadm else NODE_MIN_MIB
    if memory < least:
        meant = f" (a number alone counts MiB; did you mean {memory}Gi?)" if memory <= 64 else ""
        yield ((*at, "memory"),), f"a {role} needs at least {least} MiB here; given: {memory} MiB{meant}"


def _disk(at: Loc, disk: int, s: Scenario, catalog: Catalog) -> Iterator[Finding]:
    image = catalog.images.get(s.box)
    least = image.disk if image else DISK_MIN_GIB
    if disk < least:
        yield ((*at, "disk"), ("box",)), f"the box alone needs {least} GiB; given: {disk} GiB"
    if disk > DISK_MAX_GIB:
        yield ((*at, "disk"),), f"at most {DISK_MAX_GIB} GiB; given: {human(disk * 1024)} (a number alone counts GiB)"


def _ranges(s: Scenario) -> Iterator[Finding]:
    ranges: list[tuple[Loc, IPv4Network]] = [
        (("network", "cidr"), s.network.cidr),
        (("kubernetes", "pod_cidr"), s.kubernetes.pod_cidr),
        (("kubernetes", "service_cidr"), s.kubernetes.service_cidr),
    ]
    management = s.network.management
    for i, (at, network) in enumerate(ranges):
        for other, earlier in ranges[:i]:
            if network.overlaps(earlier):
                yield (at, other), f"{'.'.join(map(str, at))} {network} overlaps {'.'.join(map(str, other))} {earlier}"
        if not is_usable(network):
            yield (at,), f"{network} cannot be used for hosts"
        if management.subnet_of(network):
            yield (
                (at, ("network", "management")),
                f"{network} leaves no room for Vagrant's own network, a /{MANAGEMENT_PREFIX} in {management}",
            )
    if management.prefixlen > MANAGEMENT_PREFIX:
        yield (
            (("network", "management"),),
            f"a /{MANAGEMENT_PREFIX} for each lab is taken from it; given: /{management.prefixlen}",
        )
    if not is_private(management):
        yield (
            (("network", "management"),),
            f"{management} is not private; choose a range in {', '.join(map(str, PRIVATE_RANGES))}",
        )
    if not (is_private(s.network.cidr) or s.network.allow_public):
        yield (
            (("network", "cidr"), ("network", "allow_public")),
            f"{s.network.cidr} is not private: this machine would reach the lab instead of the internet's hosts there; "
            f"choose a range in {', '.join(map(str, PRIVATE_RANGES))}, or say network.allow_public: true",
        )


def is_usable(network: IPv4Network) -> bool:
    """Whether hosts can have addresses of a network: none of it is set aside (RFC 6890)."""
    apart = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
    return not any(network.overlaps(IPv4Network(each)) for each in apart)


def _room(s: Scenario) -> Iterator[Finding]:
    nodes = len(s.topology.roles)
    pods, services, network = s.kubernetes.pod_cidr, s.kubernetes.service_cidr, s.network.cidr
    narrowest = POD_PREFIX_PER_NODE - math.ceil(math.log2(max(nodes, 1)))
    if not POD_PREFIX_WIDEST <= pods.prefixlen <= narrowest:
        yield (
            (("kubernetes", "pod_cidr"), ("topology",)),
            f"{nodes} nodes take a /{POD_PREFIX_PER_NODE} each: a /{POD_PREFIX_WIDEST} to /{narrowest} is needed; "
            f"given: /{pods.prefixlen}",
        )
    plug_in = networks().get(s.kubernetes.cni)
    if plug_in and (refusal := plug_in.refusal(pods, network)):
        yield (("kubernetes", "pod_cidr"), ("kubernetes", "cni"), ("network", "cidr")), refusal
    if services.prefixlen not in SERVICE_PREFIX:
        yield (("kubernetes", "service_cidr"),), _prefix_needed(SERVICE_PREFIX, services)
    if network.prefixlen not in NETWORK_PREFIX:
        yield (("network", "cidr"),), _prefix_needed(NETWORK_PREFIX, network)
        return
    several = s.topology.roles.count("control-plane") > 1
    room = network.num_addresses - 3 - several  # without the network's own, the broadcast and the host's address
    if room < nodes:
        vip = " and a virtual IP" if several else ""
        yield (("network", "cidr"), ("topology",)), f"{network} has no room for {nodes} nodes{vip}"


def _prefix_needed(allowed: range, network: IPv4Network) -> str:
    return f"a /{allowed[0]} to /{allowed[-1]} is needed; given: /{network.prefixlen}"


def _addresses(s: Scenario) -> Iterator[Finding]:
    wanted: list[tuple[Loc, str, IPv4Address]] = [
        (("topology", "nodes", i, "address"), node.name, node.address)
        for i, node in enumerate(s.topology.nodes or ())
        if node.address is not None
    ]
    if s.topology.vip is not None:
        wanted.append((("topology", "vip"), "the virtual IP", s.topology.vip))
    network = s.network.cidr
    taken: dict[IPv4Address, str] = {}
    for at, who, address in wanted:
        looked_at: tuple[Loc, ...] = (at, ("network", "cidr"))
        if address not in network:
            yield looked_at, f"{address} is outside the lab's network {network}"
        elif address in (network.network_address, network.broadcast_address):
            yield looked_at, f"{address} is not a host's address in {network}"
        elif address == network.network_address + 1:
            yield looked_at, f"{address} is the host's own address in {network}"
        elif address in taken:
            yield looked_at, f"{address} is already the address of {taken[address]}"
        taken.setdefault(address, who)
