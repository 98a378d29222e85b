"""The servers of a lab's nodes, on this machine: TLS by the lab's own CAs, answers by the test."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from lab.cluster.clients.etcd import CLIENT_PORT
from lab.cluster.observe.collect import KUBELET_PORT
from lab.cluster.secrets import load_or_make
from lab.plan.model import API_PORT, Plan
from lab.store import LabFolder
from support.authority import LOOPBACK, server_files

Answers = dict[str, tuple[int, Any]]


class Server:
    """One HTTPS server, on a free port of the loopback unless told where.

    `answers` is by path without its query; JSON or text, or a function that makes a new one for each question.
    What is to be changed (PATCH, DELETE) is written down, and granted unless `on_change` (method, path,
    body) answers otherwise. `clock` is what it says of the time, in seconds since 1970: the host's when left out.
    """

    clock: float | None = None

    def __init__(
        self,
        context: ssl.SSLContext,
        answers: Answers,
        at: tuple[str, int] = (LOOPBACK, 0),
        on_change: Callable[[str, str, str], tuple[int, Any]] = lambda *_: (200, {}),
    ) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.changed: list[tuple[str, str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                path = self.path.partition("?")[0]
                server.asked.append(f"{path} {body}".strip())
                if self.command in {"PATCH", "DELETE"}:
                    server.changed.append((self.command, path, body))
                    status, answer = on_change(self.command, path, body)
                else:
                    status, answer = server.answers.get(path, (404, {"message": "not found"}))
                answer = answer() if callable(answer) else answer
                data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return super().date_time_string(server.clock if timestamp is None else timestamp)

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Quiet(at, Handler)
        self._server.context = context
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def tls(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    """What a server shows, and whose clients it serves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class _Quiet(ThreadingHTTPServer):
    """Handshakes in the connection's own thread, so that a client that only looks at the certificate holds up none.

    Waits for the next connection and for nothing else: http.server's own loop looks every now and
    then whether it is to end, which a dozen servers of a lab feel.
    """

    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext
    ended = False

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        while not self.ended:
            with contextlib.suppress(OSError):
                self.process_request(*self.get_request())

    def shutdown(self) -> None:
        self.ended = True
        self.socket.shutdown(socket.SHUT_RDWR)  # wakes who waits for a connection

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            with self.context.wrap_socket(request, server_side=True) as tls:
                self.finish_request(tls, client_address)
        except OSError:
            pass
        finally:
            self.shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        pass


class LabServers:
    """The API servers, etcd members and kubelets of a healthy lab, and what stands in for its endpoint.

    `doors` holds the servers by lab address and port; closing one makes its port refuse.
    """

    def __init__(self, folder: LabFolder, plan: Plan, *, days: float = 365) -> None:
        load_or_make(folder)
        self.plan = plan
        pki = folder.path / "pki"
        place = folder.path / "servers"
        api = tls(*server_files(folder, "ca", place, days=days), pki / "ca.crt")
        etcd = tls(*server_files(folder, "etcd-ca", place, days=days), pki / "etcd-ca.crt")
        self.cluster: Answers = {"/readyz": (200, "ok"), **cluster_answers(plan)}
        self.doors: dict[tuple[IPv4Address, int], Server] = {}
        self.knocked: list[tuple[IPv4Address, int]] = []
        for number, node in enumerate(plan.nodes, start=1):
            self.doors[node.address, KUBELET_PORT] = Server(api, {})
            if node.is_control_plane:
                self.doors[node.address, API_PORT] = Server(api, dict(self.cluster))
                self.doors[node.address, CLIENT_PORT] = Server(etcd, etcd_answers(plan, number))
        if plan.load_balancer is not None:
            self.doors[plan.api_endpoint] = Server(api, dict(self.cluster))
        with socket.create_server((LOOPBACK, 0)) as closed:
            self._closed = int(closed.getsockname()[1])

    def reach(self, address: IPv4Address, port: int) -> tuple[str, int]:
        self.knocked.append((address, port))
        server = self.doors.get((address, port))
        return LOOPBACK, server.port if server else self._closed

    def shut(self, address: IPv4Address, port: int) -> None:
        """From now on nothing listens there."""
        self.doors.pop((address, port)).close()

    def answer(self, path: str, status: int, body: Any) -> None:
        """What every API server answers, the endpoint included, whatever the path's query."""
        for (_, port), server in self.doors.items():
            if port not in {CLIENT_PORT, KUBELET_PORT}:
                server.answers[path.partition("?")[0]] = (status, body)

    def set_clock(self, now: float) -> None:
        """What the guests' clocks show from now on, in seconds since 1970."""
        for server in self.doors.values():
            server.clock = now

    def close(self) -> None:
        for server in self.doors.values():
            server.close()


def etcd_answers(plan: Plan, number: int, *, leader: int = 1, members: list[dict[str, Any]] | None = None) -> Answers:
    """What the member of the control plane of that number says; ids are the numbers."""
    return {
        "/v3/maintenance/status": (
            200,
            {
                "header": {"member_id": str(number), "revision": "1234", "raft_term": "2"},
                "version": "3.6.6",
                "dbSize": str(5 << 20),
                "dbSizeInUse": str(3 << 20),
                "dbSizeQuota": str(2 << 30),
                "leader": str(leader),
                "raftIndex": "4321",
                "raftTerm": "2",
            },
        ),
        "/health": (200, '{"health":"true","reason":""}'),
        "/v3/cluster/member/list": (200, {"header": {}, "members": members or members_of(plan)}),
        "/v3/maintenance/alarm": (200, {"header": {}, "alarms": []}),
        "/v3/cluster/member/remove": (200, {"header": {}, "members": []}),
    }


def members_of(plan: Plan) -> list[dict[str, Any]]:
    """The membership as etcd's JSON has it; an id is the control plane's number."""
    return [
        {
            "ID": str(number),
            "name": node.name,
            "peerURLs": [f"https://{node.address}:2380"],
            "clientURLs": [f"https://{node.address}:{CLIENT_PORT}"],
        }
        for number, node in enumerate(plan.control_planes, start=1)
    ]


def cluster_answers(plan: Plan) -> Answers:
    """The lists of a healthy cluster."""
    namespaces: Mapping[str, Callable[[str], str]] = {
        "kube-flannel": lambda node: f"kube-flannel-ds-{node}",
        "kube-system": lambda node: f"kube-proxy-{node}",
    }
    return {
        "/api/v1/nodes": (200, {"items": [node(n.name) for n in plan.nodes]}),
        "/api/v1/pods": (
            200,
            {"items": [pod(name(n.name), space, n.name) for n in plan.nodes for space, name in namespaces.items()]},
        ),
        "/api/v1/namespaces/kube-system/secrets": (200, {"items": [token("abcdef", hours=12)]}),
    }


def node(name: str, *, ready: bool = True, why: str = "", **spec: Any) -> dict[str, Any]:
    conditions = [
        {"type": "DiskPressure", "status": "False"},
        {"type": "Ready", "status": "True" if ready else "False", "message": why},
    ]
    status = {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.35.4"}}
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def pod(name: str, namespace: str, node: str, *, ready: bool = True, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [{"name": "main"}]},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def token(identity: str, *, hours: float | None, usage: str = "true", now: float | None = None) -> dict[str, Any]:
    """A bootstrap token's Secret that ends in so many hours from `now`, by default the host's."""
    data = {"token-id": identity, "usage-bootstrap-authentication": usage}
    if hours is not None:
        ends = datetime.datetime.fromtimestamp((time.time() if now is None else now) + hours * 3600, datetime.UTC)
        data["expiration"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}
