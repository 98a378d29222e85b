"""Shell lines for a control plane's node that restore what kubeadm and etcd own there."""

from __future__ import annotations

import json
import shlex

from lab.plan.model import Node, Plan
from lab.render.kubeadm import controller_manager

PHASES = {
    "etcd": "etcd local",
    "kube-apiserver": "control-plane apiserver",
    "kube-controller-manager": "control-plane controller-manager",
    "kube-scheduler": "control-plane scheduler",
}
# An API server without its etcd lets the kubelet wait before that starts etcd; one that is gone does not (seen: 1.35).
END_API_SERVER = "sudo pkill -x kube-apiserver"
_PKI = "/etc/kubernetes/pki/etcd"
ENDPOINT = "https://127.0.0.1:2379"
_ETCDCTL = (
    f"sudo etcdctl --endpoints={ENDPOINT} --command-timeout=60s "
    f"--cacert={_PKI}/ca.crt --cert={_PKI}/server.crt --key={_PKI}/server.key"
)


def etcdctl(*commands: str) -> str:
    """etcdctl's commands, one after another, against the node's own member."""
    return "; ".join(f"{_ETCDCTL} {command}" for command in commands)


def manifest_again(plan: Plan, node: Node, pod: str) -> str:
    """Write the manifest of a static pod again, as kubeadm did at first.

    What only mattered when etcd was formed (its initial cluster) is left out: a member that
    has its data does not look at it. With etcd's manifest back, the API server goes.
    Source: kubernetes.io, "kubeadm init phase".
    """
    kubernetes = plan.kubernetes
    address, port = plan.api_endpoint
    documents = (
        {
            "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": str(node.address)},
            "nodeRegistration": {"name": node.name},
        },
        {
            "kind": "ClusterConfiguration",
            "clusterName": plan.name,
            "controlPlaneEndpoint": f"{address}:{port}",
            "kubernetesVersion": f"v{kubernetes.version}",
            "networking": {"podSubnet": str(kubernetes.pod_cidr), "serviceSubnet": str(kubernetes.service_cidr)},
            **controller_manager(plan),
        },
    )
    api = kubernetes.versions.features.kubeadm_api
    texts = (shlex.quote(json.dumps({"apiVersion": api, **document})) for document in documents)
    file = "/tmp/kubeadm.yaml"  # noqa: S108 - on the node, and no secret
    written = f"printf '%s\\n' {' --- '.join(texts)} > {file}"
    end_api = f"; {END_API_SERVER} || true" if pod == "etcd" else ""
    return f"{written}; sudo kubeadm init phase {PHASES[pod]} --config {file}{end_api}"
