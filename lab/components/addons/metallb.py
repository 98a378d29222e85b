"""MetalLB in layer-2 mode: one node answers ARP for each address that a Service of type LoadBalancer has.

The addresses are of the lab's own network, near its end: of a /24, .200 to .239. Control planes have theirs from .11 on
and workers from .21 on, and all nodes from .2 on in networks of fewer than 64 addresses (lab.plan.decide): nodes that
are added later come in the way only where a /24 has more than 179 workers, a /26 more than 29, or a /28 more than ten
nodes. Addresses that a scenario gives to nodes or to the virtual IP are left out.

As upstream's manifest has it, but for these:
- No webhooks and no certificates: what is wrong in an IPAddressPool, the controller's log tells, and nothing converts a
  BGPPeer of the older version.
- The speakers' list of each other (memberlist), by which they hear of a node that is gone, is not encrypted: the
  controller makes upstream's secret, and no speaker would start before it.
- A speaker answers on the lab's NIC only, whatever an L2Advertisement says: each node also has Vagrant's.
- Control planes take part. kubeadm labels them node.kubernetes.io/exclude-from-external-load-balancers, by which in a
  lab of control planes alone no node would answer.
- Definitions take every field, and the speaker asks the API server at its own address, as Calico's do.
With kube-proxy in the mode ipvs it needs `strictARP: true`, which klab's kubeadm configuration has.
Source: go.universe.tf/metallb 0.15.2, config/ and speaker/; metallb.io, "Installation" and "MetalLB in layer 2 mode".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address
from itertools import groupby
from types import MappingProxyType
from typing import Any

from lab.components.addons.base import Addon
from lab.components.cluster import LAB_INTERFACE, Cluster
from lab.components.objects import (
    account,
    api_server,
    bound,
    container_port,
    custom_resource,
    field,
    mounted,
    on_control_planes,
    role,
)

NAMESPACE = "metallb-system"
GROUP = "metallb.io"
CONTROLLER, SPEAKER = "controller", "speaker"
# What upstream calls the service accounts is too short for ClusterRoles, which have no namespace.
ACCOUNTS = MappingProxyType({CONTROLLER: "metallb-controller", SPEAKER: "metallb-speaker"})
# The IPAddressPool and the L2Advertisement.
OWN = "lab"
EXCLUDED = "metallb-excludel2"
# Programs' own choice: metrics, which probes ask for, and memberlist.
METRICS_PORT, MEMBERS_PORT = 7472, 7946
READ, CHANGE = "get list watch", "get list watch create update patch delete"
# Kinds by their plural.
KINDS = MappingProxyType(
    {
        "bfdprofiles": "BFDProfile",
        "bgpadvertisements": "BGPAdvertisement",
        "bgppeers": "BGPPeer",
        "communities": "Community",
        "ipaddresspools": "IPAddressPool",
        "l2advertisements": "L2Advertisement",
        "servicebgpstatuses": "ServiceBGPStatus",
        "servicel2statuses": "ServiceL2Status",
    }
)
# Their versions; both programs end where BGPPeer lacks one of its two.
VERSION, VERSIONS = "v1beta1", MappingProxyType({"bgppeers": ("v1beta1", "v1beta2")})
COLUMNS = MappingProxyType(
    {
        "ipaddresspools": {"Addresses": ".spec.addresses"},
        "l2advertisements": {"IPAddressPools": ".spec.ipAddressPools", "Interfaces": ".spec.interfaces"},
        "servicel2statuses": {
            "Allocated Node": ".status.node",
            "Service Name": ".status.serviceName",
            "Service Namespace": ".status.serviceNamespace",
        },
    }
)
# Of a network, or of its first 256 addresses: which part services have, in 32nds.
FIRST, BEHIND = 25, 30


class MetalLB(Addon):
    """MetalLB with a pool of the lab's own addresses."""

    name = "metallb"
    summary = "addresses of the lab's network for LoadBalancer Services"
    version = "0.15.2"
    # EndpointSlices of version v1.
    since = (1, 21)
    repositories = MappingProxyType({CONTROLLER: "quay.io/metallb/controller", SPEAKER: "quay.io/metallb/speaker"})
    namespaces = (NAMESPACE,)
    pods = (CONTROLLER, SPEAKER)

    def refusal(self, cluster: Cluster) -> str:
        if refusal := super().refusal(cluster):
            return refusal
        if free_ranges(cluster):
            return ""
        return f"{self.name} has no address for services: nodes have all those near the end of {cluster.networks.cidr}"

    def objects(self, cluster: Cluster) -> Sequence[dict[str, Any]]:
        return (
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                # The speaker needs the host's network and raw sockets.
                "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            },
            *_definitions(),
            *_controllers_rights(),
            *_speakers_rights(),
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": EXCLUDED, "namespace": NAMESPACE},
                "data": {"excludel2.yaml": json.dumps({"announcedInterfacesToExclude": [all_but(LAB_INTERFACE)]})},
            },
            _controller(self.images[CONTROLLER]),
            _speaker(self.images[SPEAKER], cluster),
            _own("IPAddressPool", addresses=[f"{first}-{last}" for first, last in free_ranges(cluster)]),
            _own("L2Advertisement", ipAddressPools=[OWN], interfaces=[LAB_INTERFACE]),
        )


COMPONENT = MetalLB()


def free_ranges(cluster: Cluster) -> list[tuple[IPv4Address, IPv4Address]]:
    """The addresses for services, as ranges: the first and the last of each. The module tells how they are chosen."""
    cidr = cluster.networks.cidr
    size = min(cidr.num_addresses, 256)
    taken = {cluster.api_endpoint[0], *(node.address for node in cluster.nodes)}
    free = [i for i in range(size * FIRST // 32, size * BEHIND // 32) if cidr[i] not in taken]
    # Numbers that follow one another are all as far from their place in the list.
    runs = [[i for _, i in run] for _, run in groupby(enumerate(free), lambda placed: placed[1] - placed[0])]
    return [(cidr[run[0]], cidr[run[-1]]) for run in runs]


def all_but(interface: str) -> str:
    """A pattern of Go's, which has no "not", that is found in the name of every other interface.

    >>> all_but("eth1")
    '^([^e]|e[^t]|et[^h]|eth[^1]|eth1.)'
    """
    others = [f"{interface[:i]}[^{character}]" for i, character in enumerate(interface)]
    return f"^({'|'.join([*others, f'{interface}.'])})"


def _own(kind: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "metadata": {"name": OWN, "namespace": NAMESPACE},
        "spec": spec,
    }


def _definitions() -> list[dict[str, Any]]:
    return [
        custom_resource(
            GROUP,
            kind,
            plural,
            namespaced=True,
            versions=VERSIONS.get(plural, (VERSION,)),
            status=True,
            columns=COLUMNS.get(plural, {}),
        )
        for plural, kind in KINDS.items()
    ]


def _controllers_rights() -> list[dict[str, Any]]:
    name = ACCOUNTS[CONTROLLER]
    return [
        account(name, NAMESPACE),
        role(
            name,
            ("", "services namespaces", READ),
            ("", "services/status", "update"),
            ("", "events", "create patch"),
        ),
        bound(name, NAMESPACE),
        role(
            name,
            (GROUP, "ipaddresspools communities", READ),
            (GROUP, "ipaddresspools/status", "update"),
            namespace=NAMESPACE,
        ),
        bound(name, NAMESPACE, kind="Role"),
    ]


def _speakers_rights() -> list[dict[str, Any]]:
    name = ACCOUNTS[SPEAKER]
    return [
        account(name, NAMESPACE),
        role(
            name,
            ("", "services nodes namespaces", READ),
            ("discovery.k8s.io", "endpointslices", READ),
            ("", "events", "create patch"),
            (GROUP, "servicel2statuses servicel2statuses/status", CHANGE),
        ),
        bound(name, NAMESPACE),
        role(
            name,
            # BGP's passwords.
            ("", "secrets configmaps", READ),
            ("", "pods", "get list"),
            (GROUP, "bfdprofiles bgpadvertisements bgppeers communities ipaddresspools l2advertisements", READ),
            (GROUP, "servicebgpstatuses servicebgpstatuses/status", CHANGE),
            namespace=NAMESPACE,
        ),
        bound(name, NAMESPACE, kind="Role"),
    ]


def _controller(image: str) -> dict[str, Any]:
    labels = _labels(CONTROLLER)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CONTROLLER, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            # Two at once could give one address to two services.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": ACCOUNTS[CONTROLLER],
                    "tolerations": on_control_planes(),
                    "terminationGracePeriodSeconds": 0,
                    "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "fsGroup": 65534},
                    "containers": [
                        {
                            **_container(CONTROLLER, image, "--webhook-mode=disabled"),
                            "ports": [container_port("monitoring", METRICS_PORT)],
                            "securityContext": _confined(),
                        }
                    ],
                },
            },
        },
    }


def _speaker(image: str, cluster: Cluster) -> dict[str, Any]:
    labels = _labels(SPEAKER)
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": SPEAKER, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": True,
                    "serviceAccountName": ACCOUNTS[SPEAKER],
                    "tolerations": on_control_planes(),
                    "terminationGracePeriodSeconds": 2,
                    "containers": [
                        {
                            **_container(SPEAKER, image, "--ignore-exclude-lb"),
                            "env": [
                                field("METALLB_NODE_NAME", "spec.nodeName"),
                                field("METALLB_POD_NAME", "metadata.name"),
                                field("METALLB_HOST", "status.hostIP"),
                                field("METALLB_ML_BIND_ADDR", "status.podIP"),
                                {"name": "METALLB_ML_LABELS", "value": ",".join(f"{k}={v}" for k, v in labels.items())},
                                *api_server(cluster),
                            ],
                            "ports": [
                                container_port("monitoring", METRICS_PORT),
                                container_port("memberlist-tcp", MEMBERS_PORT),
                                container_port("memberlist-udp", MEMBERS_PORT, "UDP"),
                            ],
                            "securityContext": _confined("NET_RAW"),
                            "volumeMounts": [mounted(EXCLUDED, "/etc/metallb", read_only=True)],
                        }
                    ],
                    "volumes": [{"name": EXCLUDED, "configMap": {"name": EXCLUDED}}],
                },
            },
        },
    }


def _labels(component: str) -> dict[str, str]:
    return {"app": "metallb", "component": component}


def _container(name: str, image: str, *arguments: str) -> dict[str, Any]:
    # An emulated node may take seconds for an answer.
    probe = {"httpGet": {"path": "/metrics", "port": "monitoring"}, "periodSeconds": 10, "timeoutSeconds": 10}
    return {
        "name": name,
        "image": image,
        "args": [f"--port={METRICS_PORT}", "--log-level=info", *arguments],
        "livenessProbe": {**probe, "initialDelaySeconds": 10, "failureThreshold": 30},
        "readinessProbe": {**probe, "failureThreshold": 3},
        "resources": {"requests": {"cpu": "10m", "memory": "40Mi"}},
    }


def _confined(*capabilities: str) -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], **({"add": list(capabilities)} if capabilities else {})},
        "readOnlyRootFilesystem": True,
    }
