"""A lab on disk with fake machines, and a cluster that answers what the requirements ask."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import time
import uuid
from collections.abc import Callable
from typing import Any

from lab.cluster.clients.api import UnreachableError
from lab.machines.fake.behaviour import Behaviour
from lab.machines.fake.machines import FakeMachines
from lab.machines.fake.provider import FakeProvider
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Bootstrap, Scenario, Topology
from lab.store import Home, LabFolder, Record

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
OFF = {"conditions": [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]}


def opener(make: Callable[..., FakeMachines] = FakeMachines, **how: Any) -> Any:
    """What opens fake machines that behave so; a name that is none of a behaviour's is a method's, to be replaced."""
    known = {field.name for field in dataclasses.fields(Behaviour)}
    return FakeProvider(
        make=make,
        instead={name: act for name, act in how.items() if name not in known},
        **{name: value for name, value in how.items() if name in known},
    ).open


def lab_on_disk(
    home: Home, *, control_planes: int, workers: int, bootstrap: Bootstrap, name: str = "demo"
) -> tuple[LabFolder, Plan]:
    """A lab that is Ready, its fake machines running."""
    topology = Topology(control_planes=control_planes, workers=workers)
    plan = decide(Scenario(version=1, name=name, topology=topology, bootstrap=bootstrap), load_catalog())
    folder = home.lab(name)
    folder.logs.mkdir(parents=True)
    (folder.path / "plan.json").write_text(to_json(plan))
    now = time.time()
    record = Record(str(uuid.uuid4()), name, "fake", "box", 0, "ready", now, True, 1.0, now)
    folder.write_record(record)
    machines = FakeMachines(home, folder, plan, record, None)
    (folder.path / "fake").mkdir()
    for node in plan.nodes:
        machines.set_state(node.name, NodeState.STOPPED)
    machines.start([n.name for n in plan.nodes])
    return folder, plan


class FakeCluster:
    """Stands in for `lab.cluster.clients.api.Api`: a healthy cluster of `nodes`, but for those in `not_ready`.

    Remembers the paths it was asked for. Each look at the leases finds them renewed. `asleep` are pods that
    are remembered as ready and do not run yet: each look at them wakes one. `silent` kubelets do not tell what runs.
    """

    def __init__(self) -> None:
        self.nodes: list[str] = []
        self.not_ready: set[str] = set()
        self.asked: list[str] = []
        self.applied: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.asleep: list[str] = []
        self.silent: set[str] = set()
        self.unreachable = False
        self._counter = itertools.count()

    def text(self, path: str, **_: object) -> str:
        self._note(path)
        return "ok"

    def get(self, path: str, **_: object) -> Any:
        self._note(path)
        if path == "/api/v1/nodes":
            return {"items": [{"metadata": {"name": n}, "status": self._status(n)} for n in self.nodes]}
        if "leases" in path:
            renewed = str(next(self._counter))
            return {"items": [{"metadata": {"name": n}, "spec": {"renewTime": renewed}} for n in self.nodes]}
        if path.endswith("/proxy/runningpods/"):
            return {"items": self._running(path.split("/")[4])}
        return {"items": self._pods()}

    def _pods(self) -> list[dict[str, Any]]:
        parts = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
        pods = [self._pod(f"{part}-{n}", n) for n in self.nodes for part in parts]
        # All of DNS stands on the first node, as kubeadm leaves it.
        return [*pods, *(self._pod(name, self.nodes[0]) for name in ("coredns-1", "kube-proxy-1", "kube-flannel-1"))]

    def _running(self, node: str) -> list[dict[str, Any]]:
        if node in self.silent:
            raise UnreachableError("Debug endpoints are disabled.", status=405)
        mine = [pod for pod in self._pods() if pod["spec"]["nodeName"] == node]
        found = [pod for pod in mine if pod["metadata"]["name"] not in self.asleep]
        if len(found) < len(mine):
            self.asleep.pop()
        return found

    def apply(self, manifest: dict[str, Any], **_: object) -> None:
        self._note(f"apply {manifest['kind']}")
        self.applied.append(manifest)

    def delete(self, path: str, **_: object) -> None:
        self._note(f"delete {path}")
        self.deleted.append(path)
        if path.startswith("/api/v1/nodes/"):
            self.nodes.remove(path.rsplit("/", 1)[1])

    def clock(self, **_: object) -> datetime.datetime:
        return datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)

    def _note(self, path: str) -> None:
        self.asked.append(path)
        if self.unreachable:
            raise UnreachableError("the API server does not answer")

    def _status(self, node: str) -> dict[str, Any]:
        return OFF if node in self.not_ready else READY

    @staticmethod
    def _pod(name: str, node: str) -> dict[str, Any]:
        spec = {"nodeName": node, "containers": [{"name": "main"}]}
        return {"metadata": {"name": name, "namespace": "kube-system"}, "spec": spec, "status": READY}
