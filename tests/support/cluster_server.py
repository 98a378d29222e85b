"""A healthy cluster behind the API server's endpoint of a lab: real HTTPS, answers that follow what is done to it."""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from lab.cluster.clients.https import Https
from lab.cluster.secrets import load_or_make
from lab.plan.model import Plan
from lab.store import LabFolder
from support.authority import LOOPBACK, server_files
from support.lab_servers import Server, tls

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
OFF = {"conditions": [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]}
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
_SPACED = (
    *("Secret", "ConfigMap", "ServiceAccount", "DaemonSet", "Deployment", "Service", "Role", "RoleBinding"),
    *("IPAddressPool", "L2Advertisement"),
)
_UNSPACED = (
    *("Namespace", "ClusterRole", "ClusterRoleBinding", "StorageClass", "CustomResourceDefinition", "APIService"),
    "IngressClass",
)
KINDS = dict.fromkeys(_UNSPACED, False) | dict.fromkeys(_SPACED, True)
# Where an API tells of its kinds.
_ROOT = re.compile(r"/api/[^/]+|/apis/[^/]+/[^/]+")
# What each kind says of itself once it does its work.
WORKS: dict[str, dict[str, Any]] = {
    "Deployment": {"observedGeneration": 1, "availableReplicas": 1, "updatedReplicas": 1},
    "DaemonSet": {
        "observedGeneration": 1,
        "desiredNumberScheduled": 2,
        "numberAvailable": 2,
        "updatedNumberScheduled": 2,
    },
    "APIService": {"conditions": [{"type": "Available", "status": "True"}]},
    "CustomResourceDefinition": {"conditions": [{"type": "Established", "status": "True"}]},
}
CLOCK = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)


def refusing(_address: IPv4Address, _port: int) -> tuple[str, int]:
    """A `reach` to where nothing listens: the API server that is not up yet."""
    return LOOPBACK, 1


class ClusterServer:
    """The API server of a healthy cluster of `nodes`, but for those in `not_ready`; `serve` starts it.

    `asked` are the paths of what it was asked, in order, without their queries; `applied` the objects, `deleted`
    the paths of what was deleted, `objects` by path what is left of what was applied; it works. Each look at the
    leases finds them renewed. `asleep` are pods that are remembered as ready and do not run yet: each look at them
    wakes one. `silent` kubelets do not tell what runs.
    """

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.not_ready: set[str] = set()
        self.asleep: list[str] = []
        self.silent: set[str] = set()
        self.unreachable = False
        self.applied: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self._looks = itertools.count()
        self._server: Server | None = None

    def serve(self, folder: LabFolder, plan: Plan) -> None:
        """Serve the cluster of this lab from now on."""
        load_or_make(folder)
        self.close()
        context = tls(*server_files(folder, "ca", folder.path / "cluster-server"), folder.path / "pki" / "ca.crt")
        self._server = Server(context, _Paths(self._answer), on_change=self._change)
        self._server.clock = CLOCK.timestamp()
        self.nodes = [n.name for n in plan.nodes]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def reach(self, address: IPv4Address, port: int) -> tuple[str, int]:
        """Where every port of the lab's is: a port at which nothing listens while the cluster is unreachable."""
        if self.unreachable or self._server is None:
            return refusing(address, port)
        return LOOPBACK, self._server.port

    def redirect(self, patch: pytest.MonkeyPatch) -> None:
        """Let every client of klab's come here, for a command, whose lab is the command's own."""
        make = Https.__init__

        def redirected(https: Https, files: Any, _reach: Any = None, *args: Any, **more: Any) -> None:
            make(https, files, self.reach, *args, **more)

        patch.setattr(Https, "__init__", redirected)

    def _answer(self, path: str) -> tuple[int, Any]:
        self.asked.append(path)
        if path.startswith("/api/v1/nodes/"):
            node, _, question = path.removeprefix("/api/v1/nodes/").partition("/")
            return self._kubelet(node, question)
        listed: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "/api/v1/nodes": lambda: [{"metadata": {"name": n}, "status": self._status(n)} for n in self.nodes],
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": self._leases,
            "/api/v1/pods": self._pods,
            "/api/v1/persistentvolumes": list,
            "/api/v1/namespaces/kube-system/pods": self._pods,
        }
        if path in self.objects:
            return 200, self.objects[path]
        if path in listed:
            return 200, {"items": listed[path]()}
        if path in {"/readyz", "/version"}:
            return 200, "ok"
        if _ROOT.fullmatch(path) is None:
            return 404, {"message": "not found"}
        resources = [{"kind": k, "name": f"{k.lower()}s", "namespaced": spaced} for k, spaced in KINDS.items()]
        return 200, {"resources": resources}

    def _change(self, method: str, path: str, body: str) -> tuple[int, Any]:
        if method == "PATCH":
            applied = json.loads(body)
            self.applied.append(applied)
            metadata = {**applied["metadata"], "generation": 1}
            self.objects[path] = {**applied, "metadata": metadata, "status": WORKS.get(applied["kind"], {})}
            return 200, {}
        self.deleted.append(path)
        self.objects.pop(path, None)
        name = path.removeprefix("/api/v1/nodes/")
        if name in self.nodes:
            self.nodes.remove(name)
        return 200, {}

    def _kubelet(self, node: str, question: str) -> tuple[int, Any]:
        if question != "proxy/runningpods/":
            return 200, "ok"
        if node in self.silent:
            return 405, "Debug endpoints are disabled."
        mine = [pod for pod in self._pods() if pod["spec"]["nodeName"] == node]
        found = [pod for pod in mine if pod["metadata"]["name"] not in self.asleep]
        if len(found) < len(mine):
            self.asleep.pop()
        return 200, {"items": found}

    def _leases(self) -> list[dict[str, Any]]:
        renewed = str(next(self._looks))
        return [{"metadata": {"name": n}, "spec": {"renewTime": renewed}} for n in self.nodes]

    def _pods(self) -> list[dict[str, Any]]:
        pods = [_pod(f"{part}-{n}", n) for n in self.nodes for part in PARTS]
        # All of DNS stands on the first node, as kubeadm leaves it.
        return [*pods, *(_pod(name, self.nodes[0]) for name in ("coredns-1", "kube-proxy-1", "kube-flannel-1"))]

    def _status(self, node: str) -> dict[str, Any]:
        return OFF if node in self.not_ready else READY


class _Paths(dict[str, tuple[int, Any]]):
    """Answers that are made at each question."""

    def __init__(self, answer: Callable[[str], tuple[int, Any]]) -> None:
        super().__init__()
        self._answer = answer

    def get(self, path: str, _default: Any = None) -> Any:
        return self._answer(path)


def _pod(name: str, node: str) -> dict[str, Any]:
    spec = {"nodeName": node, "containers": [{"name": "main"}]}
    return {"metadata": {"name": name, "namespace": "kube-system"}, "spec": spec, "status": READY}
