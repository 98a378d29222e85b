"""metrics-server: what nodes and pods use of processors and memory, for `kubectl top` and for autoscaling.

As upstream's manifest has it, but for these: kubelets' certificates are verified, which klab's cluster CA has signed
for each node's name and InternalIP; the pod may run on a control plane; the probes are patient. /livez fails while a
round of questions to the kubelets is late, and an emulated lab answers ten times slower than upstream allows for.
Sources: github.com/kubernetes-sigs/metrics-server 0.9.0, manifests/base, README.md ("Compatibility Matrix") and
pkg/server/server.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lab.components.addons.base import Addon
from lab.components.cluster import Cluster
from lab.components.objects import account, binding, mounted, on_control_planes, role

NAME = "metrics-server"
NAMESPACE = "kube-system"
LABELS = MappingProxyType({"k8s-app": NAME})
READ = "get list watch"
# The kubelet puts the cluster's CA there, in every pod.
CLUSTER_CA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
PORT = 10250
_FLAGS = (
    "--cert-dir=/tmp",
    f"--secure-port={PORT}",
    f"--kubelet-certificate-authority={CLUSTER_CA}",
    "--kubelet-preferred-address-types=InternalIP",
    "--kubelet-use-node-status-port",
    "--metric-resolution=15s",
)


class MetricsServer(Addon):
    """metrics-server with one replica."""

    name = "metrics-server"
    summary = "kubectl top and autoscaling by processors and memory"
    version = "0.9.0"
    # Upstream's table.
    since = (1, 34)
    repositories = MappingProxyType({NAME: "registry.k8s.io/metrics-server/metrics-server"})
    pods = (NAME,)

    def objects(self, cluster: Cluster) -> Sequence[dict[str, Any]]:  # noqa: ARG002
        labels = dict(LABELS)
        return (
            account(NAME, NAMESPACE),
            *_permissions(),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    "selector": labels,
                    "ports": [
                        {"name": "https", "port": 443, "protocol": "TCP", "targetPort": "https", "appProtocol": "https"}
                    ],
                },
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
                    "template": {"metadata": {"labels": labels}, "spec": _pod(self.images[NAME])},
                },
            },
            _api(),
        )


COMPONENT = MetricsServer()


def _permissions() -> list[dict[str, Any]]:
    """What metrics-server may do, and who may read what it serves: everybody who may view a namespace."""
    readers = role("system:aggregated-metrics-reader", ("metrics.k8s.io", "pods nodes", READ))
    into = {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true" for name in ("view", "edit", "admin")}
    readers["metadata"]["labels"] = {**LABELS, **into}
    own, delegator = f"system:{NAME}", "system:auth-delegator"
    return [
        readers,
        role(own, ("", "nodes/metrics", "get"), ("", "pods nodes", READ)),
        binding(own, own, NAME, NAMESPACE),
        # It asks the API server who its callers are and what they may do.
        binding(f"{NAME}:{delegator}", delegator, NAME, NAMESPACE),
        binding(f"{NAME}-auth-reader", "extension-apiserver-authentication-reader", NAME, NAMESPACE, kind="Role"),
    ]


def _api() -> dict[str, Any]:
    """The API that the API server leaves to it, whose certificate it signs itself at each start."""
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io", "labels": dict(LABELS)},
        "spec": {
            "service": {"name": NAME, "namespace": NAMESPACE},
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }


def _pod(image: str) -> dict[str, Any]:
    return {
        "serviceAccountName": NAME,
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": on_control_planes(),
        "containers": [
            {
                "name": NAME,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": list(_FLAGS),
                "ports": [{"name": "https", "containerPort": PORT, "protocol": "TCP"}],
                # Upstream asks for 100m and 200Mi, for a hundred nodes; 66 MiB were measured with one.
                "resources": {"requests": {"cpu": "50m", "memory": "70Mi"}},
                "readinessProbe": _asked("/readyz", 12),
                "livenessProbe": {**_asked("/livez", 30), "initialDelaySeconds": 60},
                "securityContext": {
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "allowPrivilegeEscalation": False,
                    "seccompProfile": {"type": "RuntimeDefault"},
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [mounted("tmp-dir", "/tmp")],  # noqa: S108
            }
        ],
        "volumes": [{"name": "tmp-dir", "emptyDir": {}}],
    }


def _asked(path: str, failures: int) -> dict[str, Any]:
    """A probe that gives up after so many failures, ten seconds apart."""
    return {
        "httpGet": {"path": path, "port": "https", "scheme": "HTTPS"},
        "periodSeconds": 10,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }
