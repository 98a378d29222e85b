"""A lab that is Ready as its own servers tell it: real HTTPS, fake machines whose shells are real."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lab.cluster.admin_kubeconfig import write_kubeconfig
from lab.cluster.clients.etcd import CLIENT_PORT
from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.cluster.secrets import load_or_make
from lab.cluster.wait.ready import ETCD_PODS
from lab.machines.captures import PartKind
from lab.machines.fake.machines import FakeMachines
from lab.plan.model import Plan
from lab.snapshots.store import SnapshotStore
from lab.store import Home
from support.fake_lab import lab_on_disk, opener
from support.guests import NOW, Guest, GuestMachines
from support.lab_servers import Answers, LabServers, Server, pod

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CONTROL = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


class ReadyLab:
    """A lab that runs and is Ready. Its certificates end `days` from now; each look at its leases finds them renewed.

    `stale` are the nodes whose leases are never renewed.
    """

    def __init__(self, root: Path, *, planes: int = 3, workers: int = 1, days: float = 365) -> None:
        home = Home(root)
        self.folder, self.plan = lab_on_disk(home, control_planes=planes, workers=workers, bootstrap="full")
        load_or_make(self.folder)
        write_kubeconfig(self.folder, self.plan)
        self.servers = LabServers(self.folder, self.plan)
        self.stale: set[str] = set()
        self._looks = itertools.count()
        for path, (status, body) in self._answers().items():
            self.servers.answer(path, status, body)
        ends = NOW + datetime.timedelta(days=days)
        places = ((n, root / "guests" / n.name) for n in self.plan.nodes)
        self.guests = {n.name: Guest(place, self.folder, self.plan, n, ends) for n, place in places}
        self.told: list[tuple[str, str]] = []
        self.events: list[Event] = []
        self.lab = Lab(home, self.folder, self.plan, self.opener(), 60, self.events.append, reach=self.servers.reach)
        self.snapshot_store = SnapshotStore(self.folder)
        self.machines: FakeMachines = self.opener()(home, self.folder, self.plan, self.folder.record(), None)
        for node in self.plan.nodes:
            self.machines.write(node.name, PartKind.DISK, "disk")

    def opener(self, **attributes: Any) -> Any:
        return opener(partial(GuestMachines, guests=self.guests, told=self.told), **attributes)

    def impatient(self, **changes: Any) -> Lab:
        """The lab for one who does not wait: what is missing at the second look is an error."""
        return replace(self.lab, **{"timeout": 2.0, **changes})

    @property
    def endpoint(self) -> Server:
        """The server at the endpoint of the API."""
        return self.servers.doors[self.plan.api_endpoint]

    def etcd(self, node: str) -> Server:
        return self.servers.doors[self.plan.known(node).address, CLIENT_PORT]

    @property
    def notes(self) -> list[str]:
        return [f"{e.phase}: {e.text}" for e in self.events if e.state == "note"]

    def close(self) -> None:
        for server in self.servers.doors.values():
            server.close()

    def _answers(self) -> Answers:
        first = self.plan.nodes[0].name
        members = [pod(f"etcd-{n.name}", "kube-system", n.name) for n in self.plan.control_planes]
        pods = [pod(f"{part}-{n.name}", "kube-system", n.name) for n in self.plan.control_planes for part in CONTROL]
        pods += members + [pod(name, "kube-system", first) for name in ("coredns-1", "kube-proxy-1", "kube-flannel-1")]
        return {
            "/version": (200, {}),
            "/api/v1/pods": (200, {"items": pods}),
            LEASES: (200, self._leases),
            **{f"/api/v1/nodes/{n.name}/proxy/healthz": (200, "ok") for n in self.plan.nodes},
            ETCD_PODS: (200, {"items": members}),
            **objects(self.plan),
        }

    def _leases(self) -> dict[str, Any]:
        look = str(next(self._looks))
        renewed = {n.name: "0" if n.name in self.stale else look for n in self.plan.nodes}
        return {"items": [{"metadata": {"name": n}, "spec": {"renewTime": when}} for n, when in renewed.items()]}


def objects(_plan: Plan) -> Answers:
    """The discovery and the lists of a cluster with a ConfigMap and a Secret."""

    def resource(kind: str, name: str) -> dict[str, Any]:
        return {"kind": kind, "name": name, "namespaced": True, "verbs": ["list", "patch"]}

    return {
        "/apis": (200, {"groups": []}),
        "/api/v1": (200, {"resources": [resource("ConfigMap", "configmaps"), resource("Secret", "secrets")]}),
        "/api/v1/configmaps": (200, {"items": [thing("c", data={"count": "1"})]}),
        "/api/v1/secrets": (200, {"items": [thing("s", data={"password": "Z2VoZWlt"})]}),
    }


def thing(name: str, namespace: str = "default", **content: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": "1"}, **content}
