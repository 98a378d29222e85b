"""Weave Net: a daemon on each node that makes a network of all of them by itself, and one for network policies.

As upstream's manifest of 2.8.1 has it, but for these: the range is the lab's; the daemon asks the API server at its own
address instead of the service's; images are not asked for in a registry when the box has them. Without a password
nothing is encrypted. Peers find one another by the nodes' addresses, which are those of the lab's network.
Nothing of it was run here. Upstream ended with 2.8.1 (2021); the project is archived.
Source: github.com/weaveworks/weave 2.8.1, prog/weave-kube/{weave-daemonset-k8s-1.11.yaml,launch.sh}.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lab.components.cluster import Cluster
from lab.components.cni.base import DaemonNetwork
from lab.components.objects import account, api_server, bound, field, host_path, mounted, role

NAMESPACE = "kube-system"
NAME = "weave-net"
STATUS_PORT = 6784
KUBE, POLICIES = "weave-kube", "weave-npc"
WATCH = "get list watch"


class Weave(DaemonNetwork):
    """Weave Net 2.8.1."""

    name = "weave"
    summary = "Weave Net; not run"
    enforces_policies = True
    version_keys = ("weave",)
    versions = MappingProxyType({"weave": "2.8.1"})
    repositories = MappingProxyType(
        {KUBE: "docker.io/weaveworks/weave-kube", POLICIES: "docker.io/weaveworks/weave-npc"}
    )
    tag = "{}"
    namespaces = (NAMESPACE,)
    pods = (NAME,)
    daemon = NAME
    cni_file = "/etc/cni/net.d/10-weave.conflist"
    manifest_file = "weave.yaml"
    links = ("weave", "datapath", "vethwe-*", "vxlan-6784")
    leftovers = ("/var/lib/weave",)
    chains = "WEAVE"

    def manifest(self, cluster: Cluster) -> Sequence[dict[str, Any]]:
        labels = {"name": NAME}
        return (
            account(NAME, NAMESPACE),
            role(
                NAME,
                ("", "pods namespaces nodes", WATCH),
                ("networking.k8s.io", "networkpolicies", WATCH),
                ("", "nodes/status", "patch update"),
            ),
            bound(NAME, NAMESPACE),
            # Where the nodes note their peers.
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": NAME, "namespace": NAMESPACE},
                "rules": [
                    {
                        "apiGroups": [""],
                        "resources": ["configmaps"],
                        "resourceNames": [NAME],
                        "verbs": ["get", "update"],
                    },
                    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
                ],
            },
            bound(NAME, NAMESPACE, kind="Role"),
            {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    # A pod that is replaced gets time to connect before the next one goes.
                    "minReadySeconds": 5,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": _pod(cluster)},
                },
            },
        )


COMPONENT = Weave()


def _pod(cluster: Cluster) -> dict[str, Any]:
    image = cluster.kubernetes.versions.image
    privileged, requests = {"privileged": True}, {"requests": {"cpu": "50m"}}
    return {
        "hostNetwork": True,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "priorityClassName": "system-node-critical",
        "serviceAccountName": NAME,
        "tolerations": [{"operator": "Exists", "effect": effect} for effect in ("NoSchedule", "NoExecute")],
        "initContainers": [
            {
                "name": "weave-init",
                "image": image(KUBE),
                "imagePullPolicy": "IfNotPresent",
                "command": ["/home/weave/init.sh"],
                "securityContext": privileged,
                "volumeMounts": [
                    mounted("opt", "/host/opt"),
                    mounted("home", "/host/home"),
                    mounted("etc", "/host/etc"),
                    mounted("modules", "/lib/modules"),
                    mounted("xtables-lock", "/run/xtables.lock"),
                ],
            }
        ],
        "containers": [
            {
                "name": "weave",
                "image": image(KUBE),
                "imagePullPolicy": "IfNotPresent",
                "command": ["/home/weave/launch.sh"],
                "env": [
                    # Its work is done by the init container.
                    {"name": "INIT_CONTAINER", "value": "true"},
                    {"name": "IPALLOC_RANGE", "value": str(cluster.kubernetes.pod_cidr)},
                    field("HOSTNAME", "spec.nodeName"),
                    *api_server(cluster),
                ],
                "readinessProbe": {"httpGet": {"host": "127.0.0.1", "path": "/status", "port": STATUS_PORT}},
                "resources": requests,
                "securityContext": privileged,
                "volumeMounts": [
                    mounted("weavedb", "/weavedb"),
                    mounted("dbus", "/host/var/lib/dbus", read_only=True),
                    mounted("machine-id", "/host/etc/machine-id", read_only=True),
                    mounted("xtables-lock", "/run/xtables.lock"),
                ],
            },
            {
                "name": "weave-npc",
                "image": image(POLICIES),
                "imagePullPolicy": "IfNotPresent",
                "env": [field("HOSTNAME", "spec.nodeName"), *api_server(cluster)],
                "resources": requests,
                "securityContext": privileged,
                "volumeMounts": [mounted("xtables-lock", "/run/xtables.lock")],
            },
        ],
        "volumes": [
            host_path("weavedb", "/var/lib/weave"),
            host_path("opt", "/opt"),
            host_path("home", "/home"),
            host_path("etc", "/etc"),
            host_path("machine-id", "/etc/machine-id"),
            host_path("dbus", "/var/lib/dbus"),
            host_path("modules", "/lib/modules"),
            host_path("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
        ],
    }
