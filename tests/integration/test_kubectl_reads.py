"""kubectl itself judges how klab reads manifests, and into which kubeconfig it writes."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from support.compiled import default_box_program

from lab import process
from lab.app.kustomize import kustomize
from lab.app.plans import check
from lab.cluster.clients.proxies import straight_to
from lab.errors import ScenarioError
from lab.kubeconfig import merge_files
from lab.scenario.manifests import read_manifests
from lab.scenario.yaml_source import manifest_budget
from lab.store import Home

SCALARS = [
    *("=", "12:30", "190:20:30", "2024-01-01", "2024-02-29T12:00:00Z", "010", "08", "-010", "0o10", "0O10", "0x1F"),
    *(
        "0b11",
        "-0b11",
        "+0b11",
        "0_7",
        "1_000",
        "_1",
        "1__0",
        "0x_1f",
        "1_0.5",
        ".5",
        "._5",
        "5.",
        "1.",
        "1.0",
        "-1.50",
    ),
    *("1e3", "1E-3", "1e400", "1.e3", "e3", "+5", "+", "-0", "00", "0x", "0b", "0b2", "0o8", "0x1p-2", "1.2.3", "-.5"),
    *("9223372036854775807", "-9223372036854775808", "18446744073709551615", "18446744073709551616", "9" * 40),
    *("y", "Y", "yes", "yEs", "on", "OFF", "n", "No", "true", "TRUE", "tRUE", "~", "null", "NULL", "nULL", "", "<<"),
    *("'010'", '"yes"', "!!str 010", "!!float 1", "!!binary aGVsbG8=", "!!timestamp 2024-01-01", "!!str", "inf", "nan"),
]
SPARE = """\
apiVersion: v1
kind: Config
clusters: [{name: NAME, cluster: {server: "https://NAME.example:6443"}}]
"""


@pytest.fixture(scope="module")
def kubectl() -> Path:
    """The kubectl that was compiled for the default box."""
    return default_box_program("kubectl")


def double(value: object) -> object:
    """What 64 bits cannot hold is a double to Kubernetes, and shown with digits that it does not have."""
    return float(value) if isinstance(value, int) and abs(value) >= 1 << 63 else value


def as_kubectl_reads(kubectl: Path, text: str) -> dict[str, object]:
    done = process.run(
        [kubectl, "label", "--local", "--dry-run=client", "-o", "json", "-f", "-", "klab="],
        timeout=60,
        env={"KUBECONFIG": "/nowhere"},
        stdin=text,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_every_value_of_a_manifest(kubectl: Path) -> None:
    values = "".join(f"  k{n}: {written}\n" for n, written in enumerate(SCALARS))
    keys = "".join(f"  {key}: 1\n" for key in ("010", "1.50", "yes", "no", "=", "2024-01-01", "1e3"))
    merged = "more: {a: 1, <<: [{a: 2, b: 2}, {b: 3, c: 3}], c: 4}\n"
    text = f"apiVersion: a.example/v1\nkind: A\nmetadata: {{name: a}}\nvalues:\n{values}keys:\n{keys}{merged}"
    theirs = as_kubectl_reads(kubectl, text)
    (ours,) = json.loads(json.dumps(read_manifests(text, "a.yaml", manifest_budget())))
    for n, written in enumerate(SCALARS):
        assert double(ours["values"][f"k{n}"]) == double(theirs["values"][f"k{n}"]), written
        assert isinstance(ours["values"][f"k{n}"], bool) == isinstance(theirs["values"][f"k{n}"], bool), written
    assert ours["keys"] == theirs["keys"]
    assert ours["more"] == theirs["more"]


@pytest.mark.parametrize(
    "there", [set(found) for size in range(4) for found in itertools.combinations("abc", size)], ids=sorted
)
def test_kubectl_writes_the_same_file(kubectl: Path, there: set[str], tmp_path: Path) -> None:
    changed = {}
    for who in ("klab", "kubectl"):
        folder = tmp_path / who
        folder.mkdir()
        files = [folder / name for name in "abc"]
        for name in there:
            (folder / name).write_text(SPARE.replace("NAME", name))
        before = {file: file.read_bytes() if file.exists() else b"" for file in files}
        if who == "klab":
            merge_files(files, SPARE.replace("NAME", "klab-x"))
        else:
            env = {"KUBECONFIG": ":".join(map(str, files))}
            process.run([kubectl, "config", "set-cluster", "x", "--server=https://x"], timeout=60, env=env)
        changed[who] = [file.name for file in files if file.exists() and file.read_bytes() != before[file]]
    assert changed["klab"] == changed["kubectl"]


@pytest.mark.parametrize("before", ["", "null\n", "clusters: []\n---\n", "# only this\n", "{clusters: [null]}\n"])
def test_kubectl_reads_what_klab_merged(kubectl: Path, before: str, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(before)
    entry = {"name": "klab-08", "context": {"cluster": "klab-08", "user": "klab-08"}}
    merge_files([file], yaml.safe_dump({"contexts": [entry], "current-context": "klab-08"}))
    env = {"KUBECONFIG": str(file)}
    assert process.run([kubectl, "config", "current-context"], timeout=60, env=env).stdout == "klab-08\n"
    process.run([kubectl, "config", "set-context", "other"], timeout=60, env=env)


def test_kubectl_goes_straight_to_the_lab_and_to_others_by_the_proxy(kubectl: Path, tmp_path: Path) -> None:
    plan = check("1m2w")
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.closing(server.socket):
        proxy = {"HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "", "no_proxy": ""}
        for address in (*(str(node.address) for node in plan.nodes), "203.0.113.1"):
            words = [
                f"--server=https://{address}:6443",
                "--token=any",
                "--request-timeout=2s",
                "get",
                "--raw",
                "/version",
            ]
            env = {"KUBECONFIG": str(tmp_path / "none"), **proxy}
            process.run([kubectl, *words], timeout=60, check=False, env={**env, **straight_to(plan, proxy)})
        server.shutdown()
    assert set(asked) == {"203.0.113.1:6443"}


def test_kubectl_builds_a_folder_of_files_alone(kubectl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.boxes.kubectl.any_kubectl", lambda _: str(kubectl))
    build = kustomize(Home(tmp_path / "home"))
    for name in ("base", "over"):
        (tmp_path / name).mkdir()
    (tmp_path / "base" / "a.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {at: 12:30}\n"
    )
    (tmp_path / "base" / "kustomization.yaml").write_text("resources: [a.yaml]\n")
    over = tmp_path / "over" / "kustomization.yaml"
    over.write_text("resources: [../base]\nnamePrefix: my-\nnamespace: default\n")
    (found,) = read_manifests(build(tmp_path / "over"), "over", manifest_budget())
    assert (found["metadata"], found["data"]) == ({"name": "my-a", "namespace": "default"}, {"at": "12:30"})
    for elsewhere, words in (
        ("https://lessons.example/a.yaml", "connection refused"),
        ("github.com/lessons/web?ref=v1", "executable file not found in $PATH"),
        ("../../../../../../../../etc/hostname", "security; file"),
    ):
        over.write_text(f"resources: ['{elsewhere}']\n")
        with pytest.raises(ScenarioError, match="cannot be built") as caught:
            build(tmp_path / "over")
        assert words in str(caught.value.details)
