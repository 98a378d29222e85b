"""flannel: one daemon on each node, which leads pods' packets to other nodes in VXLAN.

Two things differ from flannel's published manifest, both because of what they cost on a
slow host. The init containers that copy the CNI plug-in and its configuration are left
out: the box holds the one, the seed the other. And flannel asks the API server at its own
address instead of the service's: the service exists only once kube-proxy runs, and until
then flannel would crash and be held back.
Source: github.com/flannel-io/flannel, Documentation/kube-flannel.yml and configuration.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any

from lab.components.cluster import LAB_INTERFACE, Cluster, File, Node
from lab.components.cni.base import Commands, DaemonNetwork, Observed, Problem
from lab.components.objects import account, api_server, bound, field, host_path, mounted, role

NAMESPACE = "kube-flannel"
# Before, critical pods are in kube-system or nowhere (kubernetes pull request 76310).
CRITICAL_ANYWHERE = (1, 17)
# Before, kube-proxy's mark stays on a packet that it has masqueraded. The packet of VXLAN around it is masqueraded as
# well then, and has a wrong checksum where the card was to make it: a node asked for another node's pod hardly ever
# answers (kubernetes issue 88986, pull request 92035; flannel, troubleshooting.md).
MARK_TAKEN_AWAY = (1, 19)
DAEMON = "kube-flannel-ds"
CONFIG = "kube-flannel-cfg"
CNI_FILE = "/etc/cni/net.d/10-flannel.conflist"
# What udev gives the VXLAN device when it appears (systemd.link(5)).
LINK_FILE = "/etc/systemd/network/10-flannel.link"
_LINK = """\
[Match]
OriginalName=flannel.1

[Link]
TransmitChecksumOffload=no
"""
# Where the seed puts the CNI configuration until flannel is up.
CNI_SOURCE = "/etc/klab/cni.conflist"
# What flanneld writes when the node's part of the pod network is up, and its plug-in reads.
SUBNET_FILE = "/run/flannel/subnet.env"

# A node is Ready as soon as it has a CNI configuration. Given before flannel runs, the first
# pods land there, fail to get a network and are held back; so it is given when flannel is up.
_WAIT = f"""\
(
    until [ -e {SUBNET_FILE} ]; do sleep 0.5; done
    install -D -m 644 {CNI_SOURCE} {CNI_FILE}
) &
cni=$!
"""
_WAITED = """\
say network begin
wait "$cni"
say network done
"""


class Flannel(DaemonNetwork):
    """flannel with its VXLAN back end."""

    name = "flannel"
    summary = "VXLAN between the nodes"
    version_keys = ("flannel", "flannel_cni")
    repositories = MappingProxyType({"flannel": "ghcr.io/flannel-io/flannel"})
    namespaces = (NAMESPACE,)
    pods = ("kube-flannel",)
    daemon = DAEMON
    cni_file = CNI_FILE
    state_file = SUBNET_FILE
    manifest_file = "kube-flannel.yml"
    links = ("cni0", "flannel.1")
    leftovers = ("/run/flannel",)
    tables = ("ip flannel-ipv4", "ip6 flannel-ipv6")
    chains = "FLANNEL-"

    def seed_files(self, cluster: Cluster, node: Node) -> Sequence[File]:  # noqa: ARG002
        return (File(CNI_SOURCE, cni_configuration()), *_link(cluster))

    def prepared_files(self, cluster: Cluster, node: Node) -> Sequence[File]:  # noqa: ARG002
        return (File(CNI_FILE, cni_configuration()), *_link(cluster))

    def before_kubeadm(self, cluster: Cluster, node: Node) -> str:  # noqa: ARG002
        return _WAIT

    def after_kubeadm(self, cluster: Cluster, node: Node) -> str:  # noqa: ARG002
        return _WAITED

    def manifest(self, cluster: Cluster) -> Sequence[dict[str, Any]]:
        return manifest(cluster)

    def problems(self, seen: Observed, commands: Commands) -> Iterator[Problem]:
        yield from self.daemon_problems(seen, commands)
        if not seen.state.subnet:
            what = "flannel has not set up the node's part of the pod network"
            yield Problem(what, f"{SUBNET_FILE} is missing", self.again(seen, commands))
        yield from self.no_configuration(seen, _cni_again(commands, seen.node))


COMPONENT = Flannel()


def _cni_again(commands: Commands, node: str) -> str:
    """The file as flannel's ConfigMap has it."""
    field = r"jsonpath={.data.cni-conf\.json}"
    read = commands.kubectl("get", "configmap", "-n", NAMESPACE, CONFIG, "-o", field)
    return f"{read} | {commands.ssh(node, f'sudo tee {CNI_FILE}')}"


def cni_configuration() -> str:
    """The node's CNI configuration (`CNI_FILE`)."""
    config = {
        "name": "cbr0",
        "cniVersion": "0.3.1",
        "plugins": [
            {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    return json.dumps(config, indent=2) + "\n"


def manifest(cluster: Cluster) -> list[dict[str, Any]]:
    """flannel's objects, in an order in which they can be applied."""
    labels = {"app": "flannel", "k8s-app": "flannel", "tier": "node"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            # flannel needs the host's network; the policy label tells Pod Security admission so.
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        },
        account("flannel", NAMESPACE),
        role("flannel", ("", "pods", "get"), ("", "nodes", "get list watch"), ("", "nodes/status", "patch")),
        bound("flannel", NAMESPACE),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIG, "namespace": NAMESPACE, "labels": labels},
            "data": {"cni-conf.json": cni_configuration(), "net-conf.json": _net_conf(cluster)},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": DAEMON, "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "selector": {"matchLabels": {"app": "flannel"}},
                "template": {"metadata": {"labels": labels}, "spec": _pod(cluster)},
            },
        },
    ]


def _net_conf(cluster: Cluster) -> str:
    config = {
        "Network": str(cluster.kubernetes.pod_cidr),
        "EnableNFTables": True,
        "Backend": {"Type": "vxlan"},
    }
    return json.dumps(config, indent=2) + "\n"


def _link(cluster: Cluster) -> Sequence[File]:
    return () if cluster.kubernetes.versions.minor >= MARK_TAKEN_AWAY else (File(LINK_FILE, _LINK),)


def _pod(cluster: Cluster) -> dict[str, Any]:
    critical = cluster.kubernetes.versions.minor >= CRITICAL_ANYWHERE
    return {
        "hostNetwork": True,
        **({"priorityClassName": "system-node-critical"} if critical else {}),
        "serviceAccountName": "flannel",
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "containers": [
            {
                "name": "kube-flannel",
                "image": cluster.kubernetes.versions.image("flannel"),
                "command": ["/opt/bin/flanneld"],
                "args": ["--ip-masq", "--kube-subnet-mgr", f"--iface={LAB_INTERFACE}"],
                "resources": {"requests": {"cpu": "100m", "memory": "50Mi"}},
                "securityContext": {"privileged": False, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
                "env": [
                    field("POD_NAME", "metadata.name"),
                    field("POD_NAMESPACE", "metadata.namespace"),
                    *api_server(cluster),
                ],
                "volumeMounts": [
                    mounted("run", "/run/flannel"),
                    mounted("flannel-cfg", "/etc/kube-flannel/"),
                    mounted("xtables-lock", "/run/xtables.lock"),
                ],
            }
        ],
        "volumes": [
            host_path("run", "/run/flannel"),
            {"name": "flannel-cfg", "configMap": {"name": CONFIG}},
            host_path("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
        ],
    }
