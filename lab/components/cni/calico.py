"""Calico: routes and network policies by a daemon on each node, pods' packets between nodes in VXLAN.

As upstream's manifest of 3.28 for VXLAN has it, but for these: the pool is the lab's range of pods, VXLAN always and
IPIP never; a node's address is that of the lab's NIC; the daemon and the CNI plug-in ask the API server at its own
address instead of the service's; IPv6, the disruption budget and the step from an older Calico are left out. The
definitions of Calico's resources take every field, where upstream's describe each (nine tenths of the manifest): what
they would refuse they let pass.
Nothing of it was run here.
Source: github.com/projectcalico/calico 3.28.5, manifests/calico-vxlan.yaml; docs.tigera.io, "Configuring calico/node".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lab.components.cluster import LAB_INTERFACE, Cluster
from lab.components.cni.base import DaemonNetwork
from lab.components.objects import account, api_server, bound, custom_resource, field, host_path, mounted, role

NAMESPACE = "kube-system"
DAEMON, CONTROLLERS, PLUG_IN = "calico-node", "calico-kube-controllers", "calico-cni-plugin"
CONFIG = "calico-config"
GROUP = "crd.projectcalico.org"
CNI_NAME = "10-calico.conflist"
CHANGE = "get list create update delete"
CLUSTER_RESOURCES = MappingProxyType(
    {
        "bgpconfigurations": "BGPConfiguration",
        "bgpfilters": "BGPFilter",
        "bgppeers": "BGPPeer",
        "blockaffinities": "BlockAffinity",
        "caliconodestatuses": "CalicoNodeStatus",
        "clusterinformations": "ClusterInformation",
        "felixconfigurations": "FelixConfiguration",
        "globalnetworkpolicies": "GlobalNetworkPolicy",
        "globalnetworksets": "GlobalNetworkSet",
        "hostendpoints": "HostEndpoint",
        "ipamblocks": "IPAMBlock",
        "ipamconfigs": "IPAMConfig",
        "ipamhandles": "IPAMHandle",
        "ippools": "IPPool",
        "ipreservations": "IPReservation",
        "kubecontrollersconfigurations": "KubeControllersConfiguration",
    }
)
NAMESPACED_RESOURCES = MappingProxyType({"networkpolicies": "NetworkPolicy", "networksets": "NetworkSet"})
_READ = (
    "felixconfigurations bgppeers bgpfilters bgpconfigurations ippools ipreservations ipamblocks globalnetworkpolicies "
    "globalnetworksets networkpolicies networksets clusterinformations hostendpoints blockaffinities caliconodestatuses"
)


class Calico(DaemonNetwork):
    """Calico with its VXLAN back end and its own assignment of addresses."""

    name = "calico"
    summary = "Calico with VXLAN; not run"
    enforces_policies = True
    version_keys = ("calico",)
    versions = MappingProxyType({"calico": "3.28.5"})
    repositories = MappingProxyType(
        {
            "calico-cni": "docker.io/calico/cni",
            DAEMON: "docker.io/calico/node",
            CONTROLLERS: "docker.io/calico/kube-controllers",
        }
    )
    namespaces = (NAMESPACE,)
    pods = (DAEMON, CONTROLLERS)
    daemon = DAEMON
    cni_file = f"/etc/cni/net.d/{CNI_NAME}"
    manifest_file = "calico.yaml"
    links = ("vxlan.calico", "cali*")
    leftovers = ("/var/lib/calico", "/run/calico")
    chains = "cali[-:]"

    def manifest(self, cluster: Cluster) -> Sequence[dict[str, Any]]:
        return (
            *(custom_resource(GROUP, kind, plural) for plural, kind in CLUSTER_RESOURCES.items()),
            *(custom_resource(GROUP, kind, plural, namespaced=True) for plural, kind in NAMESPACED_RESOURCES.items()),
            *_accounts(),
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CONFIG, "namespace": NAMESPACE},
                "data": {"cni_network_config": cni_configuration()},
            },
            _daemon(cluster),
            _controllers(cluster),
        )


COMPONENT = Calico()


def cni_configuration() -> str:
    """The CNI configuration that Calico writes on a node; it fills in what stands between double underscores."""
    calico = {
        "type": "calico",
        "log_level": "info",
        "log_file_path": "/var/log/calico/cni/cni.log",
        "datastore_type": "kubernetes",
        "nodename": "__KUBERNETES_NODE_NAME__",
        "mtu": 0,
        "ipam": {"type": "calico-ipam"},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"},
    }
    plugins = [
        calico,
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ]
    return json.dumps({"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": plugins}, indent=2) + "\n"


def _accounts() -> list[dict[str, Any]]:
    """What the daemon, the controllers and the CNI plug-in may do."""
    allocation = (GROUP, "blockaffinities ipamblocks ipamhandles", CHANGE)
    node = role(
        DAEMON,
        ("", "pods nodes namespaces", "get list watch"),
        ("", "serviceaccounts", "list watch"),
        ("", "endpoints services", "get list watch"),
        ("", "configmaps", "get"),
        ("", "nodes/status", "patch update"),
        ("", "pods/status", "patch"),
        ("apps", "daemonsets", "get"),
        ("discovery.k8s.io", "endpointslices", "list watch"),
        ("networking.k8s.io", "networkpolicies", "list watch"),
        (GROUP, _READ, "get list watch"),
        (GROUP, "ippools felixconfigurations clusterinformations bgpconfigurations bgppeers", "create update"),
        (GROUP, "caliconodestatuses", "update"),
        (GROUP, "ipamconfigs", "get create"),
        allocation,
    )
    # It makes the plug-in's credentials.
    token = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [PLUG_IN], "verbs": ["create"]}
    node["rules"].append(token)
    controllers = role(
        CONTROLLERS,
        ("", "nodes pods", "get list watch"),
        (GROUP, "ipreservations", "list"),
        (GROUP, "ippools", "list watch"),
        (GROUP, "blockaffinities ipamblocks ipamhandles", f"{CHANGE} watch"),
        (GROUP, "hostendpoints", CHANGE),
        (GROUP, "clusterinformations kubecontrollersconfigurations", "get list create update watch"),
    )
    plug_in = role(
        PLUG_IN,
        ("", "pods nodes namespaces", "get"),
        ("", "pods/status", "patch"),
        (
            GROUP,
            "blockaffinities ipamblocks ipamhandles clusterinformations ippools ipreservations ipamconfigs",
            CHANGE,
        ),
    )
    found = []
    for name, allowed in ((DAEMON, node), (CONTROLLERS, controllers), (PLUG_IN, plug_in)):
        found += [account(name, NAMESPACE), allowed, bound(name, NAMESPACE)]
    return found


def _daemon(cluster: Cluster) -> dict[str, Any]:
    labels = {"k8s-app": DAEMON}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": DAEMON, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _node_pod(cluster)},
        },
    }


def _node_pod(cluster: Cluster) -> dict[str, Any]:
    image = cluster.kubernetes.versions.image
    own, privileged = field("KUBERNETES_NODE_NAME", "spec.nodeName"), {"privileged": True}
    settings = {
        "DATASTORE_TYPE": "kubernetes",
        "WAIT_FOR_DATASTORE": "true",
        "CALICO_NETWORKING_BACKEND": "vxlan",
        "CLUSTER_TYPE": "k8s",
        # Each node also has Vagrant's NIC.
        "IP": "autodetect",
        "IP_AUTODETECTION_METHOD": f"interface={LAB_INTERFACE}",
        "CALICO_IPV4POOL_CIDR": str(cluster.kubernetes.pod_cidr),
        "CALICO_IPV4POOL_VXLAN": "Always",
        "CALICO_IPV4POOL_IPIP": "Never",
        "CALICO_DISABLE_FILE_LOGGING": "true",
        "FELIX_DEFAULTENDPOINTTOHOSTACTION": "ACCEPT",
        "FELIX_IPV6SUPPORT": "false",
        "FELIX_HEALTHENABLED": "true",
    }
    probe = {"periodSeconds": 10, "timeoutSeconds": 10}
    return {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "hostNetwork": True,
        "tolerations": [{"operator": "Exists", "effect": effect} for effect in ("NoSchedule", "NoExecute")],
        "serviceAccountName": DAEMON,
        "terminationGracePeriodSeconds": 0,
        "priorityClassName": "system-node-critical",
        "initContainers": [
            {
                "name": "install-cni",
                "image": image("calico-cni"),
                "imagePullPolicy": "IfNotPresent",
                "command": ["/opt/cni/bin/install"],
                "env": [
                    {"name": "CNI_CONF_NAME", "value": CNI_NAME},
                    {
                        "name": "CNI_NETWORK_CONFIG",
                        "valueFrom": {"configMapKeyRef": {"name": CONFIG, "key": "cni_network_config"}},
                    },
                    {"name": "SLEEP", "value": "false"},
                    own,
                    *api_server(cluster),
                ],
                "securityContext": privileged,
                "volumeMounts": [mounted("cni-bin", "/host/opt/cni/bin"), mounted("cni-net", "/host/etc/cni/net.d")],
            },
            {
                "name": "mount-bpffs",
                "image": image(DAEMON),
                "imagePullPolicy": "IfNotPresent",
                "command": ["calico-node", "-init", "-best-effort"],
                "securityContext": privileged,
                "volumeMounts": [
                    mounted("sys-fs", "/sys/fs", propagation="Bidirectional"),
                    mounted("run", "/var/run/calico", propagation="Bidirectional"),
                    mounted("proc", "/nodeproc", read_only=True),
                ],
            },
        ],
        "containers": [
            {
                "name": DAEMON,
                "image": image(DAEMON),
                "imagePullPolicy": "IfNotPresent",
                "env": [
                    *({"name": name, "value": value} for name, value in settings.items()),
                    field("NODENAME", "spec.nodeName"),
                    *api_server(cluster),
                ],
                "securityContext": privileged,
                "resources": {"requests": {"cpu": "250m"}},
                "lifecycle": {"preStop": {"exec": {"command": ["/bin/calico-node", "-shutdown"]}}},
                "livenessProbe": {
                    "exec": {"command": ["/bin/calico-node", "-felix-live"]},
                    "initialDelaySeconds": 10,
                    "failureThreshold": 6,
                    **probe,
                },
                "readinessProbe": {"exec": {"command": ["/bin/calico-node", "-felix-ready"]}, **probe},
                "volumeMounts": [
                    mounted("cni-net", "/host/etc/cni/net.d"),
                    mounted("modules", "/lib/modules", read_only=True),
                    mounted("xtables-lock", "/run/xtables.lock"),
                    mounted("run", "/var/run/calico"),
                    mounted("lib", "/var/lib/calico"),
                    mounted("policysync", "/var/run/nodeagent"),
                    mounted("bpffs", "/sys/fs/bpf"),
                    mounted("cni-log", "/var/log/calico/cni", read_only=True),
                ],
            }
        ],
        "volumes": [
            host_path("modules", "/lib/modules"),
            host_path("run", "/var/run/calico", "DirectoryOrCreate"),
            host_path("lib", "/var/lib/calico", "DirectoryOrCreate"),
            host_path("xtables-lock", "/run/xtables.lock", "FileOrCreate"),
            host_path("sys-fs", "/sys/fs/", "DirectoryOrCreate"),
            host_path("bpffs", "/sys/fs/bpf", "Directory"),
            host_path("proc", "/proc"),
            host_path("cni-bin", "/opt/cni/bin", "DirectoryOrCreate"),
            host_path("cni-net", "/etc/cni/net.d"),
            host_path("cni-log", "/var/log/calico/cni"),
            host_path("policysync", "/var/run/nodeagent", "DirectoryOrCreate"),
        ],
    }


def _controllers(cluster: Cluster) -> dict[str, Any]:
    labels = {"k8s-app": CONTROLLERS}
    probe = {"periodSeconds": 10}

    def check(flag: str) -> dict[str, Any]:
        return {"exec": {"command": ["/usr/bin/check-status", flag]}}

    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CONTROLLERS, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                    "serviceAccountName": CONTROLLERS,
                    "priorityClassName": "system-cluster-critical",
                    "containers": [
                        {
                            "name": CONTROLLERS,
                            "image": cluster.kubernetes.versions.image(CONTROLLERS),
                            "imagePullPolicy": "IfNotPresent",
                            "env": [
                                {"name": "ENABLED_CONTROLLERS", "value": "node"},
                                {"name": "DATASTORE_TYPE", "value": "kubernetes"},
                            ],
                            "livenessProbe": {
                                **check("-l"),
                                "initialDelaySeconds": 10,
                                "failureThreshold": 6,
                                "timeoutSeconds": 10,
                                **probe,
                            },
                            "readinessProbe": {**check("-r"), **probe},
                        }
                    ],
                },
            },
        },
    }
