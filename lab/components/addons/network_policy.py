"""kube-network-policies: a daemon on each node that decides on the first packet of each connection of a node's pods.

Its rules (nftables, table `inet kube-network-policies`) hand that packet to the daemon, if a NetworkPolicy selects the
pod that sends or gets it; all others pass untouched. They stand in postrouting, ahead of all that changes a packet's
sender, and DNS in prerouting, behind what leads a service's packet to a pod: so the daemon sees pods' own addresses
beside kube-proxy in each of its modes, and beside every pod network whose pods reach one another under these. Packets
between two pods of one node cross a bridge only; they meet the rules with br_netfilter and
net.bridge.bridge-nf-call-iptables=1, which every box sets.

Kernel modules: nf_tables, nft_ct, nft_queue and nfnetlink_queue. The kernel loads them when the daemon asks for them.
Debian's linux-image-cloud-amd64 has all four, in 6.1 and in 6.12.

As upstream's manifest has it, but for these: the daemon asks the API server at its own address instead of the
service's, since until kube-proxy runs nothing would be enforced after a node's boot; its metrics are for the node
alone; it is as critical as kube-proxy; while it is away, packets pass. AdminNetworkPolicy is not turned on.

The last because a daemon's rules outlive it when it dies, and when anything but SIGINT stops it; the image that klab
compiles (boxes/addons) asks for SIGINT, upstream's does not. With upstream's manifest, packets that nobody decides on
are dropped: an add-on that was removed would leave pods cut off. Until a daemon has made its first rules, all packets
pass in any case.
Sources: github.com/kubernetes-sigs/kube-network-policies 0.8.0, install.yaml, cmd/main.go and pkg/networkpolicy.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lab.components.addons.base import Addon
from lab.components.cluster import Cluster
from lab.components.objects import account, api_server, bound, field, host_path, mounted, role

NAME = "kube-network-policies"
NAMESPACE = "kube-system"
# Upstream's number; nothing else in a lab has a queue.
QUEUE = 98
METRICS = "127.0.0.1:9080"
WATCH = "list watch"
# Where the container runtime tells of new pods before the API server does, and where it keeps their networks.
RUNTIME_EVENTS, PODS_NETWORKS = "/var/run/nri", "/var/run/netns"


class NetworkPolicy(Addon):
    """kube-network-policies for NetworkPolicy objects."""

    name = "network-policy"
    summary = "NetworkPolicy objects are enforced, beside any pod network"
    version = "0.8.0"
    repositories = MappingProxyType({NAME: "registry.k8s.io/networking/kube-network-policies"})
    pods = (NAME,)
    enforces_policies = True

    def objects(self, cluster: Cluster) -> Sequence[dict[str, Any]]:
        labels = {"tier": "node", "app": NAME, "k8s-app": NAME}
        return (
            account(NAME, NAMESPACE),
            role(NAME, ("", "pods namespaces", WATCH), ("networking.k8s.io", "networkpolicies", WATCH)),
            bound(NAME, NAMESPACE),
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    "selector": {"matchLabels": {"app": NAME}},
                    # Its rules follow some seconds after its start, and nothing but its log tells of them.
                    "minReadySeconds": 10,
                    "template": {"metadata": {"labels": labels}, "spec": _pod(cluster, self.images[NAME])},
                },
            },
        )


COMPONENT = NetworkPolicy()


def _pod(cluster: Cluster, image: str) -> dict[str, Any]:
    return {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "serviceAccountName": NAME,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "containers": [
            {
                "name": NAME,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": [
                    "/bin/netpol",
                    "--hostname-override=$(MY_NODE_NAME)",
                    "--v=2",
                    f"--nfqueue-id={QUEUE}",
                    "--fail-open",
                    f"--metrics-bind-address={METRICS}",
                ],
                "resources": {"requests": {"cpu": "50m", "memory": "50Mi"}},
                "securityContext": {"privileged": True, "capabilities": {"add": ["NET_ADMIN"]}},
                "env": [field("MY_NODE_NAME", "spec.nodeName"), *api_server(cluster)],
                "volumeMounts": [
                    mounted("nri-plugin", RUNTIME_EVENTS),
                    mounted("netns", PODS_NETWORKS, propagation="HostToContainer"),
                ],
            }
        ],
        "volumes": [
            host_path("nri-plugin", RUNTIME_EVENTS, "DirectoryOrCreate"),
            host_path("netns", PODS_NETWORKS, "DirectoryOrCreate"),
        ],
    }
