"""What a foreign plan may hold: what a scenario may, and what `lab.plan.decide` makes of it. Pure.

A plan of klab's own follows from a scenario, which has passed its rules. One in a bundle is only said to: every
value is looked at here before it becomes a name of a file, a network of this host or a line of a configuration.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network

from lab.components.cni import networks as pod_networks
from lab.components.kubernetes.proxy import MODES
from lab.components.kubernetes.proxy import refusal as proxy_refusal
from lab.components.kubernetes.versions import FULL_VERSION
from lab.components.runtime import runtimes
from lab.components.runtime.base import Mirror
from lab.plan.decide import MAC_PREFIX
from lab.plan.model import LOAD_BALANCER_PORT, KubernetesPlan, LoadBalancer, Networks, Node, Plan
from lab.scenario.kinds import (
    CPUS,
    WORD,
    check_mirror,
    check_name,
    check_node_name,
    check_registry,
    check_scenario_name,
)
from lab.scenario.model import MOST_ADDONS, MOST_IMAGES, is_private
from lab.scenario.references import check_image
from lab.scenario.rules import (
    DISK_MAX_GIB,
    MANAGEMENT_PREFIX,
    MOST_CONTROL_PLANES,
    NETWORK_PREFIX,
    POD_PREFIX_PER_NODE,
    POD_PREFIX_WIDEST,
    SERVICE_PREFIX,
    is_usable,
)
from lab.text import shortened, visible

MOST_MEMORY_MIB = 1 << 24  # 16 TiB
MOST_SEAT = 1 << 24
MOST_GROWN = 240  # a scenario has fewer, but klab node add continues until a /24 is full
_MOST_PATH = 4096
_MAC = re.compile(rf"{MAC_PREFIX}(?::[0-9a-f]{{2}}){{3}}")
_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}(?:-[0-9]{1,4})?")


def plan_problems(plan: Plan) -> list[str]:
    """Why klab did not write a plan, one line each; [] where it may have.

    Args:
        plan: a plan whose values have the right types, as `lab.plan.file` reads them. Versions may be those of another
            klab; container runtimes and pod networks may not.
    """
    problems = [*_words(plan), *_nodes(plan), *_networks(plan.networks), *_kubernetes(plan)]
    # What is left builds on sound nodes and networks.
    return problems or [*_addresses(plan), *_balancer(plan)]


def _words(plan: Plan) -> Iterator[str]:
    yield from _refused("its name", check_name, plan.name)
    yield from _refused("its scenario's name", check_scenario_name, plan.scenario)
    for what, word in (("box", plan.box), ("storage pool", plan.pool), ("CPU model", plan.cpu_model)):
        if word is not None and WORD.fullmatch(word) is None:
            yield f"{_shown(word)} is not a {what}"
    if plan.cloud_image and plan.bootstrap != "none":
        yield f"klab cannot make a cluster (bootstrap {plan.bootstrap}) of a cloud image"
    if not 0 <= plan.seat < MOST_SEAT:
        yield f"{_shown(plan.seat)} is not a seat"
    for registry, mirror in plan.mirrors:
        yield from _refused("a mirror's registry", check_registry, registry)
        yield from _refused("a mirror", check_mirror, mirror)
    if len(plan.addons) > MOST_ADDONS:
        yield f"it has {len(plan.addons)} add-ons"
    if len(plan.images) > MOST_IMAGES or (plan.images and plan.bootstrap == "none"):
        yield f"it has {len(plan.images)} images"
    for image in plan.images:
        yield from _refused("an image", _check_whole_name, image)
    for addon in plan.addons:
        if not addon.strip() or visible(addon) != addon or len(addon) > _MOST_PATH:
            yield f"{_shown(addon)} is not the path of an add-on"


def _check_whole_name(image: object) -> None:
    if check_image(image) != image:
        raise ValueError(f"{_shown(image)} is not its whole name")


def _refused(what: str, check: Callable[[object], object], value: str) -> Iterator[str]:
    try:
        check(value)
    except ValueError as error:
        yield f"{what}: {visible(str(error))}"


def _nodes(plan: Plan) -> Iterator[str]:
    if not 0 < len(plan.nodes) <= MOST_GROWN:
        yield f"it has {len(plan.nodes)} nodes"
    if not 0 < len(plan.control_planes) <= MOST_CONTROL_PLANES:
        yield f"it has {len(plan.control_planes)} control planes"
    for node in plan.nodes:
        yield from _node(node)
    for what, values in (
        ("name", [node.name for node in plan.nodes]),
        ("UUID", [node.uuid for node in plan.nodes]),
        ("MAC address", [mac for node in plan.nodes for mac in (node.mac, node.management_mac)]),
    ):
        if len(set(values)) < len(values):
            yield f"two nodes have the same {what}"


def _node(node: Node) -> Iterator[str]:
    yield from _refused("a node's name", check_node_name, node.name)
    who = _shown(node.name)
    yield from _refused(f"the CPUs of {who}", CPUS.convert, node.cpus)  # type: ignore[arg-type]
    if not 0 < node.memory <= MOST_MEMORY_MIB:
        yield f"{who} has {_shown(node.memory)} MiB RAM"
    if not 0 < node.disk <= DISK_MAX_GIB:
        yield f"{who} has a disk of {_shown(node.disk)} GiB"
    if not _is_uuid(node.uuid):
        yield f"the UUID of {who} is invalid"
    if not all(_MAC.fullmatch(mac) for mac in (node.mac, node.management_mac)):
        yield f"a MAC address of {who} does not begin as klab's do"


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _networks(networks: Networks) -> Iterator[str]:
    lab, management = networks.cidr, networks.management_cidr
    if lab.prefixlen not in NETWORK_PREFIX or not is_private(lab):
        yield f"{lab} cannot be a lab's network"
    elif networks.gateway != lab[1]:
        yield f"the gateway of {lab} is not {networks.gateway}"
    if management.prefixlen != MANAGEMENT_PREFIX or not is_private(management):
        yield f"{management} cannot be a lab's management network"


def _kubernetes(plan: Plan) -> Iterator[str]:
    kubernetes = plan.kubernetes
    for component, version in kubernetes.versions.as_data().items():
        if (FULL_VERSION if component == "version" else _VERSION).fullmatch(version) is None:
            yield f"{_shown(version)} is not a version of {component.replace('_', ' ')}"
    for what, word, known in (
        ("runtime", kubernetes.runtime, tuple(runtimes())),
        ("network plug-in", kubernetes.cni, tuple(pod_networks())),
    ):
        if word not in known:
            yield f"{_shown(word)} is not a {what} that this klab knows"
    yield from _runtime(plan)
    yield from _proxy_mode(kubernetes)
    yield from _ranges(kubernetes, plan.networks)
    plug_in = pod_networks().get(kubernetes.cni)
    if plug_in and (refusal := plug_in.refusal(kubernetes.pod_cidr, plan.networks.cidr)):
        yield refusal


def _proxy_mode(kubernetes: KubernetesPlan) -> Iterator[str]:
    mode, versions = kubernetes.chosen_proxy_mode, kubernetes.versions
    if mode is None:
        return
    if mode not in MODES:
        yield f"{_shown(mode)} is not a mode of kube-proxy that this klab knows"
    elif FULL_VERSION.fullmatch(versions.version) and (refusal := proxy_refusal(mode, versions.minor)):
        yield refusal


def _runtime(plan: Plan) -> Iterator[str]:
    containers, versions = runtimes().get(plan.kubernetes.runtime), plan.kubernetes.versions
    if containers is not None and FULL_VERSION.fullmatch(versions.version):
        refusals = (
            containers.refusal(versions.minor),
            containers.mirrors_refusal([Mirror(*pair) for pair in plan.mirrors]),
        )
        yield from filter(None, refusals)


def _ranges(kubernetes: KubernetesPlan, networks: Networks) -> Iterator[str]:
    pods, services = kubernetes.pod_cidr, kubernetes.service_cidr
    if not is_usable(pods) or not POD_PREFIX_WIDEST <= pods.prefixlen <= POD_PREFIX_PER_NODE:
        yield f"{pods} cannot be the pods' range"
    if not is_usable(services) or services.prefixlen not in SERVICE_PREFIX:
        yield f"{services} cannot be the services' range"
    taken: list[IPv4Network] = []
    for network in (networks.cidr, networks.management_cidr, pods, services):
        yield from (f"{network} overlaps {other}" for other in taken if network.overlaps(other))
        taken.append(network)


def _addresses(plan: Plan) -> Iterator[str]:
    networks = plan.networks
    if (networks.name, networks.management_name) != (f"klab-{plan.name}", f"klab-{plan.name}-mgmt"):
        yield "its networks have names that klab does not give"
    cidr = networks.cidr
    apart = {cidr.network_address, cidr.broadcast_address, networks.gateway}
    taken = {plan.load_balancer.vip} if plan.load_balancer else set()
    for node in plan.nodes:
        if node.address not in cidr or node.address in apart:
            yield f"{node.address} is not an address for {node.name} in {cidr}"
        if node.address in taken:
            yield f"{node.address} is the address of two"
        taken.add(node.address)
    if plan.load_balancer and (plan.load_balancer.vip not in cidr or plan.load_balancer.vip in apart):
        yield f"{plan.load_balancer.vip} is not a virtual IP in {cidr}"


def _balancer(plan: Plan) -> Iterator[str]:
    planes = [node.name for node in plan.control_planes]
    balancer = plan.load_balancer
    if balancer is None:
        if len(planes) > 1:
            yield "it has several control planes and no virtual IP"
        return
    yield from _balancer_values(balancer, planes)


def _balancer_values(balancer: LoadBalancer, planes: Iterable[str]) -> Iterator[str]:
    if balancer.port != LOAD_BALANCER_PORT:
        yield f"its load balancer listens on port {_shown(balancer.port)}, not {LOAD_BALANCER_PORT}"
    if not 0 < balancer.vrid < 256:
        yield f"{_shown(balancer.vrid)} is not a virtual router ID"
    names = balancer.nodes
    if not names or len(set(names)) < len(names) or not set(names) <= set(planes):
        yield "its load balancers are not on its control planes"


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**50:
        return "a number of more than 50 digits"
    return shortened(visible(str(value)), 80)
