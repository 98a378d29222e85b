"""flannel: the manifest for the cluster and the CNI configuration for each node.

Two things differ from flannel's published manifest, both because of what they cost on a
slow host. The init containers that copy the CNI plug-in and its configuration are left
out: the box holds the one, the seed the other. And flannel asks the API server at its own
address instead of the service's: the service exists only once kube-proxy runs, and until
then flannel would crash and be held back.
Source: github.com/flannel-io/flannel, Documentation/kube-flannel.yml and configuration.md.
"""

from __future__ import annotations

import json
from typing import Any

from lab.plan.model import Plan
from lab.render.yamltext import dump_all

NAMESPACE = "kube-flannel"
LAB_INTERFACE = "eth1"  # eth0 is Vagrant's
CNI_FILE = "/etc/cni/net.d/10-flannel.conflist"
# What flanneld writes when the node's part of the pod network is up, and its plug-in reads.
SUBNET_FILE = "/run/flannel/subnet.env"


def render_cni() -> str:
    """The node's CNI configuration, /etc/cni/net.d/10-flannel.conflist."""
    config = {
        "name": "cbr0",
        "cniVersion": "0.3.1",
        "plugins": [
            {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    return json.dumps(config, indent=2) + "\n"


def render_manifest(plan: Plan) -> str:
    """flannel's objects as YAML, ready for `kubectl apply`."""
    return dump_all(manifest(plan))


def manifest(plan: Plan) -> list[dict[str, Any]]:
    """flannel's objects, in an order in which they can be applied."""
    labels = {"app": "flannel", "k8s-app": "flannel", "tier": "node"}
    account = {"name": "flannel", "namespace": NAMESPACE}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            # flannel needs the host's network; the policy label says so to Pod Security admission.
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "flannel"},
            "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "flannel"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-flannel-cfg", "namespace": NAMESPACE, "labels": labels},
            "data": {"cni-conf.json": render_cni(), "net-conf.json": _net_conf(plan)},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "kube-flannel-ds", "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "selector": {"matchLabels": {"app": "flannel"}},
                "template": {"metadata": {"labels": labels}, "spec": _pod(plan)},
            },
        },
    ]


def _net_conf(plan: Plan) -> str:
    config = {
        "Network": str(plan.kubernetes.pod_cidr),
        "EnableNFTables": True,
        "Backend": {"Type": "vxlan"},
    }
    return json.dumps(config, indent=2) + "\n"


def _pod(plan: Plan) -> dict[str, Any]:
    def field(name: str, path: str) -> dict[str, Any]:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    address, port = plan.api_endpoint
    return {
        "hostNetwork": True,
        "priorityClassName": "system-node-critical",
        "serviceAccountName": "flannel",
        "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
        "containers": [
            {
                "name": "kube-flannel",
                "image": plan.kubernetes.versions.image("flannel"),
                "command": ["/opt/bin/flanneld"],
                "args": ["--ip-masq", "--kube-subnet-mgr", f"--iface={LAB_INTERFACE}"],
                "resources": {"requests": {"cpu": "100m", "memory": "50Mi"}},
                "securityContext": {"privileged": False, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}},
                "env": [
                    field("POD_NAME", "metadata.name"),
                    field("POD_NAMESPACE", "metadata.namespace"),
                    {"name": "KUBERNETES_SERVICE_HOST", "value": str(address)},
                    {"name": "KUBERNETES_SERVICE_PORT", "value": str(port)},
                ],
                "volumeMounts": [
                    {"name": "run", "mountPath": "/run/flannel"},
                    {"name": "flannel-cfg", "mountPath": "/etc/kube-flannel/"},
                    {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
                ],
            }
        ],
        "volumes": [
            {"name": "run", "hostPath": {"path": "/run/flannel"}},
            {"name": "flannel-cfg", "configMap": {"name": "kube-flannel-cfg"}},
            {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
        ],
    }
