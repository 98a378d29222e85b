"""What klab writes of mirrors, read by the containerd of the default box, before a registry with a CA and a login."""

from __future__ import annotations

import hashlib
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.authority import LOOPBACK, server_files
from support.compiled import default_box_program

from lab import process
from lab.cluster.secrets import load_or_make
from lab.components.runtime import runtimes
from lab.components.runtime.base import Mirror
from lab.components.runtime.containerd import CERTS_FOLDER
from lab.plan.decide import decide
from lab.process import Completed
from lab.scenario.catalog import load_catalog
from lab.scenario.mirror_access import MirrorAccess
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder
from lab.waiting import Deadline, poll

LOGIN = MirrorAccess(login="class:pass word").basic
INDEX, CONFIG = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
LAYER = b"a layer"
SETTINGS = """\
version = 3
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.nri.v1.nri",
]
"""


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob(data: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


class Registry:
    """A registry over HTTPS that holds one image under every name, and answers those who log in. `asked` has paths."""

    def __init__(self, folder: LabFolder, place: Path) -> None:
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        ).encode()
        layers = [blob(LAYER, "application/vnd.oci.image.layer.v1.tar")]
        made = {"schemaVersion": 2, "mediaType": INDEX, "config": blob(config, CONFIG), "layers": layers}
        manifest = json.dumps(made).encode()
        blobs = {digest(each): each for each in (config, LAYER, manifest)}
        asked: list[str] = []
        self.asked, self.wanted = asked, ""
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked.append(self.path)
                name = self.path.partition("?")[0].rpartition("/")[2]
                if owner.wanted and self.headers.get("Authorization") != owner.wanted:
                    self.answer(401, b"{}", "application/json")
                elif "/manifests/" in self.path:
                    self.answer(200, manifest, INDEX)
                else:
                    self.answer(200 if name in blobs else 404, blobs.get(name, b""), "application/octet-stream")

            def do_HEAD(self) -> None:
                self.do_GET()

            def answer(self, status: int, data: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Docker-Content-Digest", digest(data))
                if status == 401:
                    self.send_header("WWW-Authenticate", 'Basic realm="class"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*server_files(folder, "ca", place))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"https://{LOOPBACK}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> LabFolder:
    found = LabFolder(tmp_path_factory.mktemp("mirrors") / "lab")
    load_or_make(found)
    return found


@pytest.fixture
def registry(folder: LabFolder, tmp_path: Path) -> Iterator[Registry]:
    found = Registry(folder, tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a containerd that keeps content and runs nothing."""
    place = tmp_path_factory.mktemp("containerd")
    (place / "config.toml").write_text(SETTINGS)
    socket, places = place / "sock", [f"--root={place / 'root'}", f"--state={place / 'state'}"]
    with (place / "log").open("wb") as log:
        words = [default_box_program("containerd"), f"--config={place / 'config.toml'}", f"--address={socket}", *places]
        child = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        assert poll(socket.exists, Deadline.after(60), every=0.1), (place / "log").read_text()[-2000:]
        yield socket
    finally:
        child.terminate()
        child.wait()


def fetch(containerd: Path, certs: Path, image: str) -> Completed:
    words = [default_box_program("ctr"), "--address", containerd, "content", "fetch", "--hosts-dir", certs, image]
    return process.run(words, timeout=120, check=False)


def written(place: Path, *mirrors: Mirror) -> Path:
    """The folder of hosts.toml files, as klab writes them for a node."""
    catalog = load_catalog()
    versions = decide(parse_scenario("version: 1\nname: a\n", catalog), catalog).kubernetes.versions
    certs = place / "certs.d"
    for file in runtimes()["containerd"].files(versions, mirrors):
        path = certs / file.path.removeprefix(f"{CERTS_FOLDER}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content.replace(CERTS_FOLDER, str(certs)))
    return certs


def ca_of(folder: LabFolder) -> str:
    return (folder.pki / "ca.crt").read_text()


def test_a_mirror_with_a_path_a_ca_and_a_login(
    containerd: Path, registry: Registry, folder: LabFolder, tmp_path: Path
) -> None:
    registry.wanted = f"Basic {LOGIN}"
    mirror = Mirror("quay.example", f"{registry.address}/class/proxy", ca_of(folder), LOGIN)
    done = fetch(containerd, written(tmp_path, mirror), "quay.example/team/tool:1")
    assert done.code == 0, done.stderr
    assert registry.asked[0] == "/v2/class/proxy/team/tool/manifests/1?ns=quay.example"
    assert any("/v2/class/proxy/team/tool/blobs/" in path for path in registry.asked)


@pytest.mark.parametrize("without", ["ca", "basic"])
def test_without_its_ca_or_login_it_is_not_asked_in_vain(
    without: str, containerd: Path, registry: Registry, folder: LabFolder, tmp_path: Path
) -> None:
    registry.wanted = f"Basic {LOGIN}"
    mirror = Mirror("quay.example", registry.address, ca_of(folder), LOGIN)._replace(**{without: ""})
    done = fetch(containerd, written(tmp_path, mirror), "quay.example/team/other:1")
    assert done.code != 0


def test_one_mirror_for_all_other_registries(
    containerd: Path, registry: Registry, folder: LabFolder, tmp_path: Path
) -> None:
    certs = written(tmp_path, Mirror("_default", registry.address, ca_of(folder)))
    for image, path in (
        ("registry.example:5000/a/b:2", "/v2/a/b/manifests/2?ns=registry.example%3A5000"),
        ("quay.io/a/c:2", "/v2/a/c/manifests/2?ns=quay.io"),
        ("docker.io/library/d:2", "/v2/library/d/manifests/2?ns=docker.io"),
    ):
        registry.asked.clear()
        done = fetch(containerd, certs, image)
        assert done.code == 0, done.stderr
        assert registry.asked[0] == path
