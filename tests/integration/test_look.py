"""klab's look at a lab before a real API server and a real etcd on this machine, with the lab's own certificates."""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from support.authority import LOOPBACK, server_files
from support.compiled import default_box_program

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

    def end(self, name: str) -> None:
        self.children[name].kill()
        self.children[name].wait()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        found.wait(lambda facts: facts.endpoint is not None and not facts.endpoint.error)
        yield found
    finally:
        for name in found.children:
            found.end(name)


NODE = """
apiVersion: v1
kind: Node
metadata: {name: cp1}
spec: {unschedulable: true}
"""
SECRETS = """
apiVersion: v1
kind: Secret
metadata: {{name: bootstrap-token-abcdef, namespace: kube-system}}
type: bootstrap.kubernetes.io/token
stringData: {{token-id: abcdef, expiration: "{ends}", usage-bootstrap-authentication: "true"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: other, namespace: kube-system}}
stringData: {{token-id: other, usage-bootstrap-authentication: "true"}}
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: coredns-1, namespace: kube-system}
spec: {nodeName: cp1, containers: [{name: c, image: none}]}
"""


def test_a_look_at_what_really_runs(plane: ControlPlane) -> None:
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=7)
    plane.apply(NODE)
    plane.apply(SECRETS.format(ends=ends.strftime("%Y-%m-%dT%H:%M:%SZ")))
    plane.apply(PODS)
    facts = plane.look()
    assert facts.unseen == ()
    (node,) = facts.nodes
    assert (node.api, node.registered, node.ready, node.cordoned) == ("", True, False, True)
    # Only Secrets of the tokens' type are tokens.
    assert facts.tokens is not None
    assert [t.id for t in facts.tokens] == ["abcdef"]
    assert facts.token is not None
    assert facts.token.hours == pytest.approx(7, abs=0.2)
    assert facts.pods is not None
    assert [(p.name, p.node, p.ready, p.why) for p in facts.pods] == [("coredns-1", "cp1", False, "Pending")]
    assert facts.etcd is not None
    assert (facts.etcd.leader, facts.etcd.has_quorum, facts.etcd.error) == ("cp1", True, "")
    days = {c.what: c.days for c in facts.certificates if c.days is not None}
    assert set(days) == {"API server", "etcd", "klab's admin"}


def test_an_api_server_without_etcd_says_so(plane: ControlPlane) -> None:
    plane.end("etcd")
    # It may believe for a moment what it has asked last.
    facts = plane.wait(lambda facts: facts.endpoint is not None and "etcd" in facts.endpoint.error)
    assert facts.quorum_lost.startswith(
        "etcd has lost its quorum: 0 of 1 members answer, 1 are needed; klab doctor look"
    )
