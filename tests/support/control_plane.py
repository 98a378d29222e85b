"""A real etcd and a real API server as processes of this machine, with a lab's own certificates."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from lab import process
from lab.cluster.clients.etcd import CLIENT_PORT
from lab.cluster.observe.collect import collect_facts
from lab.cluster.observe.facts import ClusterFacts
from lab.cluster.secrets import load_or_make
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.plan.model import API_PORT
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder, Record
from support.authority import LOOPBACK, server_files
from support.compiled import default_box_program

WAIT_SECONDS = 240.0
RECORD = Record("id", "look", "fake", "box", 0, "ready", 0.0)


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


class ControlPlane:
    """etcd and an API server as processes of this machine; what a lab's only control plane runs."""

    def __init__(self, place: Path) -> None:
        catalog = load_catalog()
        self.place = place
        self.folder = LabFolder(place / "look")
        self.plan = decide(parse_scenario("version: 1\nname: look\n", catalog), catalog)
        load_or_make(self.folder)
        self.pki = self.folder.path / "pki"
        self.ports = {CLIENT_PORT: free_port(), API_PORT: free_port()}
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd()
        self._api()

    def reach(self, address: IPv4Address, port: int) -> tuple[str, int]:
        assert address == self.plan.nodes[0].address
        return LOOPBACK, self.ports.get(port, 1)

    def states(self) -> dict[str, NodeState]:
        return {node.name: NodeState.RUNNING for node in self.plan.nodes}

    def look(self) -> ClusterFacts:
        machines: Any = self
        return collect_facts(self.folder, self.plan, RECORD, machines, seconds=10, reach=self.reach)

    def wait(self, holds: Callable[[ClusterFacts], bool]) -> ClusterFacts:
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds(facts := self.look()):
            log = (self.place / "kube-apiserver.log").read_text()[-2000:]
            assert time.monotonic() < deadline, f"{facts.endpoint}\n{log}"
            time.sleep(1)
        return facts

    def apply(self, text: str) -> None:
        command = [default_box_program("kubectl"), "apply", "--filename", "-", "--validate=false"]
        server = [
            f"--server=https://{LOOPBACK}:{self.ports[API_PORT]}",
            f"--certificate-authority={self.pki / 'ca.crt'}",
        ]
        client = [f"--client-certificate={self.pki / 'admin.crt'}", f"--client-key={self.pki / 'admin.key'}"]
        process.run([*command, *server, *client], timeout=120, stdin=text, env={**os.environ, "KUBECONFIG": os.devnull})

    def _etcd(self) -> None:
        certificate, key = server_files(self.folder, "etcd-ca", self.place)
        client, peer = f"https://{LOOPBACK}:{self.ports[CLIENT_PORT]}", f"http://{LOOPBACK}:{free_port()}"
        name = self.plan.nodes[0].name
        self._start(
            "etcd",
            {
                "name": name,
                "data-dir": self.place / "etcd",
                "listen-client-urls": client,
                "advertise-client-urls": client,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"{name}={peer}",
                "client-cert-auth": "true",
                "trusted-ca-file": self.pki / "etcd-ca.crt",
                "cert-file": certificate,
                "key-file": key,
                "unsafe-no-fsync": "true",
            },
        )

    def _api(self) -> None:
        certificate, key = server_files(self.folder, "ca", self.place)
        client, client_key = server_files(self.folder, "etcd-ca", self.place / "client")
        self._start(
            "kube-apiserver",
            {
                "bind-address": LOOPBACK,
                "advertise-address": LOOPBACK,
                "secure-port": self.ports[API_PORT],
                "endpoint-reconciler-type": "none",
                "authorization-mode": "Node,RBAC",
                "client-ca-file": self.pki / "ca.crt",
                "tls-cert-file": certificate,
                "tls-private-key-file": key,
                "cert-dir": self.place,
                "etcd-servers": f"https://{LOOPBACK}:{self.ports[CLIENT_PORT]}",
                "etcd-cafile": self.pki / "etcd-ca.crt",
                "etcd-certfile": client,
                "etcd-keyfile": client_key,
                "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
                "service-account-key-file": self.pki / "sa.pub",
                "service-account-signing-key-file": self.pki / "sa.key",
                "service-cluster-ip-range": self.plan.kubernetes.service_cidr,
                "disable-admission-plugins": "ServiceAccount",
            },
        )

    def _start(self, name: str, options: dict[str, Any]) -> None:
        with (self.place / f"{name}.log").open("wb") as log:
            self.children[name] = subprocess.Popen(
                [default_box_program(name), *(f"--{option}={value}" for option, value in options.items())],
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        for name in self.children:
            self.end(name)

    def end(self, name: str) -> None:
        self.children[name].kill()
        self.children[name].wait()
