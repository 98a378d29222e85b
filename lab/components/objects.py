"""Parts of Kubernetes' objects, as components' manifests need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lab.components.cluster import Cluster

_NOTHING: Mapping[str, str] = MappingProxyType({})


def role(name: str, *rules: tuple[str, str, str], namespace: str = "") -> dict[str, Any]:
    """A ClusterRole, or a namespace's Role; each rule has an API group, resources and verbs, parted by spaces."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
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


def container_port(name: str, port: int, protocol: str = "TCP") -> dict[str, Any]:
    """A container's port. Its protocol is a key of the list: API servers of old (1.16) apply none without it."""
    return {"name": name, "containerPort": port, "protocol": protocol}


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


def custom_resource(
    group: str,
    kind: str,
    plural: str,
    *,
    namespaced: bool = False,
    versions: Sequence[str] = ("v1",),
    status: bool = False,
    columns: Mapping[str, str] = _NOTHING,
) -> dict[str, Any]:
    """A CustomResourceDefinition that takes every field.

    Args:
        group: the API group.
        kind: the kind's name.
        plural: its name in the API's paths.
        namespaced: its objects are in namespaces.
        versions: its versions; objects are kept in the last one, and nothing but its name differs in the others.
        status: its status is written apart from the rest.
        columns: what `kubectl get` shows beside the name: headings, each with the path of a field.
    """
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    shown = [{"name": heading, "type": "string", "jsonPath": path} for heading, path in columns.items()]
    each = {
        "served": True,
        "schema": {"openAPIV3Schema": schema},
        **({"subresources": {"status": {}}} if status else {}),
        **({"additionalPrinterColumns": shown} if shown else {}),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced" if namespaced else "Cluster",
            "versions": [{"name": version, "storage": version == versions[-1], **each} for version in versions],
        },
    }
