"""What stands in for upstream's servers: a web server of files, a real registry, and what goes wrong in front of it."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab import process

# What a registry's client may say and hear that is passed on as it is.
_PASSED_ON = ("Accept", "Authorization", "Range")
_ANSWERED = ("Content-Type", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "Www-Authenticate")
# USER and PASSWORD, as htpasswd -B writes them; the registry takes no other kind.
USER, PASSWORD = "student", "chalk"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuulSvK6issof5RJr8TnRG5W8OA1EwMK1C\n"


@dataclass
class Trouble:
    """What happens to the requests whose path matches, until it has met so many.

    status: answered in place of what is there; 0 for none. cut: bytes of the body after which the connection is closed.
    stall: bytes of the body after which nothing more comes. silent: not even a header comes.
    """

    path: str
    times: int = 1 << 30
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: int | None = None
    silent: bool = False


@dataclass(frozen=True)
class Asked:
    """One request: its path and its headers by their names in lower case."""

    path: str
    headers: Mapping[str, str]


class StandIn(ThreadingHTTPServer):
    """A server on the loopback that serves a folder, or passes on to another server, and fails as it is told.

    Args:
        folder: what it serves; or
        port: that of the server it passes on to.
        ranges: it can go on in the middle of a file.
        tls: its certificate and key.
        at: its address and port; a free port where that is 0.
    """

    daemon_threads = True

    def __init__(
        self,
        folder: Path | None = None,
        port: int = 0,
        ranges: bool = True,
        tls: tuple[Path, Path] | None = None,
        at: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(at, _Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.folder, self.to, self.ranges = folder, port, ranges
        self.troubles: list[Trouble] = []
        self.asked: list[Asked] = []
        self.over = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone, as one that was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def trouble(self, path: str) -> Trouble | None:
        for each in self.troubles:
            if re.search(each.path, path) and each.times > 0:
                each.times -= 1
                return each
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._serve(with_body=False)

    def do_GET(self) -> None:
        self._serve(with_body=True)

    def _serve(self, *, with_body: bool) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(Asked(self.path, headers))
        trouble = self.server.trouble(self.path)
        if trouble is not None and trouble.silent:
            self.server.over.wait()
            self.close_connection = True
            return
        if trouble is not None and trouble.status:
            self._answer(trouble.status, trouble.headers, b"", with_body)
            return
        status, answer, body = self._passed_on() if self.server.folder is None else self._of_folder()
        self._answer(status, answer, body, with_body, trouble)

    def _answer(
        self, status: int, headers: Mapping[str, str], body: bytes, with_body: bool, trouble: Trouble | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        sent = body if trouble is None else body[: trouble.cut if trouble.stall is None else trouble.stall]
        self.wfile.write(sent)
        self.wfile.flush()
        if trouble is not None:
            if trouble.stall is not None:
                self.server.over.wait()
            self.close_connection = True

    def _of_folder(self) -> tuple[int, dict[str, str], bytes]:
        assert self.server.folder is not None
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            return 404, {}, b"no such file"
        body = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not self.server.ranges:
            return 200, {}, body
        start = int(asked[1])
        if start >= len(body):
            return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
        return 206, {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, body[start:]

    def _passed_on(self) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.to, timeout=60)
        try:
            said = {name: ", ".join(self.headers.get_all(name, ())) for name in _PASSED_ON if name in self.headers}
            connection.request("GET", self.path, headers=said)
            answer = connection.getresponse()
            kept = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
            return answer.status, kept, answer.read()
        finally:
            connection.close()


@contextmanager
def serving(server: StandIn) -> Iterator[StandIn]:
    """A stand-in at work."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def registry(folder: Path, *, locked: bool = False) -> Iterator[int]:
    """Debian's docker-registry on the loopback; the port it listens on.

    Args:
        folder: an empty one, for what it keeps.
        locked: it wants a user and a password.
    """
    with StandIn(folder) as unused:
        port = unused.server_port
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "store")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of no matter"},
    }
    if locked:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "lessons", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML, too
    # A variable that begins with REGISTRY_ would be part of its configuration; skopeo has one, too.
    argv = ["docker-registry", "serve", folder / "config.yml"]
    with process.start(argv, env={"REGISTRY_AUTH_FILE": None}) as child:
        _wait_for(port, child)
        yield port


def _wait_for(port: int, child: subprocess.Popen[str]) -> None:
    while child.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()
    raise AssertionError(f"the registry has ended: {child.stderr.read() if child.stderr else ''}")
