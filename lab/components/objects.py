"""Parts of Kubernetes' objects, as components' manifests need them."""

from __future__ import annotations

from typing import Any

from lab.components.cluster import Cluster


def role(name: str, *rules: tuple[str, str, str]) -> dict[str, Any]:
    """A ClusterRole; each rule has an API group, resources and verbs, parted by spaces."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [group], "resources": what.split(), "verbs": verbs.split()} for group, what, verbs in rules
        ],
    }


def bound(name: str, namespace: str, *, kind: str = "ClusterRole") -> dict[str, Any]:
    """The binding of a role to the service account of its name."""
    return binding(name, name, name, namespace, kind=kind)


def binding(name: str, to: str, who: str, namespace: str, *, kind: str = "ClusterRole") -> dict[str, Any]:
    """The binding of the role `to` to the service account `who`, where these have names of their own."""
    metadata = {"name": name} if kind == "ClusterRole" else {"name": name, "namespace": namespace}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": to},
        "subjects": [{"kind": "ServiceAccount", "name": who, "namespace": namespace}],
    }


def account(name: str, namespace: str) -> dict[str, Any]:
    """A service account."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def field(name: str, path: str) -> dict[str, Any]:
    """A container's variable that has a field of its pod."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def api_server(cluster: Cluster) -> list[dict[str, Any]]:
    """Variables by which a pod asks the API server at its own address, not at the service's, which kube-proxy makes."""
    address, port = cluster.api_endpoint
    return [
        {"name": "KUBERNETES_SERVICE_HOST", "value": str(address)},
        {"name": "KUBERNETES_SERVICE_PORT", "value": str(port)},
    ]


def on_control_planes() -> list[dict[str, Any]]:
    """Tolerations of a pod that may run on a control plane, too: a lab may have nothing else."""
    taints = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
    return [{"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in taints]


def host_path(name: str, path: str, kind: str = "") -> dict[str, Any]:
    """A volume that is a place on the node; `kind` says what is made where there is none."""
    return {"name": name, "hostPath": {"path": path, **({"type": kind} if kind else {})}}


def mounted(name: str, path: str, *, read_only: bool = False, propagation: str = "") -> dict[str, Any]:
    """Where a container has a volume."""
    return {
        "name": name,
        "mountPath": path,
        **({"readOnly": True} if read_only else {}),
        **({"mountPropagation": propagation} if propagation else {}),
    }


def custom_resource(group: str, kind: str, plural: str, *, namespaced: bool = False) -> dict[str, Any]:
    """A CustomResourceDefinition of version v1 that takes every field."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced" if namespaced else "Cluster",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
