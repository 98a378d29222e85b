"""What a node tells of itself: the very script, run by this machine's shell with programs that answer as a node's."""

from __future__ import annotations

import base64
import math
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab.cluster.observe.node_probe import ask_nodes, health, probe
from lab.cluster.observe.node_report import MOST_LINES, UPTIME_STEP, NodeReport, Process, Unit, parse
from lab.cluster.secrets import admin_files, load_or_make
from lab.components.kubernetes.versions import KubernetesVersion, features
from lab.errors import MachineError
from lab.plan.model import KubernetesPlan
from lab.process import Completed
from lab.store import LabFolder, Record

HEALTH = health(features((1, 35)))
RECORD = Record("id", "ha", "fake", "box", 0, "ready", 0.0)
SYSTEMCTL = """\
case "$*" in
show*) cat <<'END'
Id=kubelet.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
UnitFileState=enabled
Result=exit-code

Id=containerd.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
Result=success
END
;;
*is-active*) exit 3 ;;
esac
"""
PROGRAMS = {
    "systemctl": SYSTEMCTL,
    "journalctl": "echo 'E1121 failed to run Kubelet:   swap is on'",
    "df": (
        "[ $1 = -P ] && printf 'Filesystem\\n/dev/sda1 20000000 18000000 2000000 91%% /\\n'\n"
        "[ $1 = -Pi ] && printf 'Filesystem\\n/dev/sda1 1000 120 880 12%% /\\n'"
    ),
    "ip": "echo '3: eth1    inet 192.168.56.11/24 brd x'; echo '3: eth1    inet 192.168.56.10/24 scope global'",
    "ctr": "echo registry.k8s.io/pause:3.10.1; echo docker.io/library/nginx:latest",
    "timeout": 'shift; exec "$@"',
    "curl": "exit 7",
}


def kubernetes(runtime: str = "containerd", version: str = "1.35.4") -> KubernetesPlan:
    versions = KubernetesVersion(version, etcd="3.6.6", etcd_image="3.6.6-0", coredns="1.13.1", pause="3.10.1")
    ranges = IPv4Network("10.244.0.0/16"), IPv4Network("10.96.0.0/12")
    return KubernetesPlan(versions, runtime, "flannel", *ranges)


def told(tmp_path: Path, containers: str = "containerd", **programs: str) -> NodeReport:
    """What the script for nodes with a container runtime, run here, says of one whose programs are these."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {**PROGRAMS, **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    began = time.time()
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-s"], input=probe(kubernetes(containers)), capture_output=True, text=True, env=env, check=True
    )
    return parse(done.stdout, RECORD, began, time.time())


def test_the_script_asks_and_parse_reads(tmp_path: Path) -> None:
    report = told(tmp_path)
    assert report.units == {
        "kubelet": Unit("loaded", "activating", "auto-restart", "enabled", "exit-code"),
        "containerd": Unit("loaded", "active", "running", "enabled", "success"),
    }
    assert report.unit("haproxy").active == "unknown"
    assert report.kubelet == "E1121 failed to run Kubelet: swap is on"
    assert (report.disk, report.free, report.inodes) == (91, 2000000, 12)
    assert report.addresses == ("192.168.56.11", "192.168.56.10")
    assert report.images == ("registry.k8s.io/pause:3.10.1", "docker.io/library/nginx:latest")
    assert report.clock is not None
    # This very clock was asked.
    assert abs(report.clock.offset) <= report.clock.uncertainty


def test_containerd_that_does_not_answer(tmp_path: Path) -> None:
    assert told(tmp_path, ctr="exit 1").images is None


def test_a_node_without_images_is_not_one_that_does_not_tell(tmp_path: Path) -> None:
    assert told(tmp_path, ctr="true").images == ()


def test_images_are_told_by_their_full_names(tmp_path: Path) -> None:
    docker = "printf 'registry.k8s.io/pause:3.10.1\\nnginx:latest\\ngrafana/grafana:1\\n127.0.0.1:5000/a/b:1\\n'"
    report = told(tmp_path, "docker", docker=docker, ctr="exit 1")
    full = ("registry.k8s.io/pause:3.10.1", "docker.io/library/nginx:latest", "docker.io/grafana/grafana:1")
    assert report.images == (*full, "127.0.0.1:5000/a/b:1")


def test_crictls_table_is_read(tmp_path: Path) -> None:
    table = "IMAGE TAG 'IMAGE ID' SIZE\nregistry.k8s.io/pause 3.10.1 cd073f4c5f6a 742kB\nquay.io/a <none> 1 2B"
    report = told(tmp_path, "cri-o", crictl=f"cat <<'END'\n{table}\nEND")
    assert report.images == ("registry.k8s.io/pause:3.10.1",)


@pytest.mark.parametrize(("name", "client"), [("docker", "docker"), ("cri-o", "crictl")])
def test_a_runtime_that_does_not_answer(tmp_path: Path, name: str, client: str) -> None:
    assert told(tmp_path, name, **{client: "exit 1"}).images is None


class Health(BaseHTTPRequestHandler):
    """A control plane's program that says what its server's `status` is."""

    def do_GET(self) -> None:
        assert self.path in {urlsplit(url).path for url in HEALTH.values()}
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[Callable[[int], int]]:
    """Starts servers on this machine; each is given a status and returns its port."""
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int) -> int:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Health)
        server.status = status  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_programs_are_found_and_asked(tmp_path: Path, served: Callable[[int], int]) -> None:
    """Real processes with the names that the kernel gives them, and the real curl."""
    script, moved = probe(kubernetes()), {}
    for name, status in (("kube-scheduler", 200), ("etcd", 503)):
        moved[HEALTH[name]] = f"http://127.0.0.1:{served(status)}{urlsplit(HEALTH[name]).path}"
        script = script.replace(HEALTH[name], moved[HEALTH[name]])
    place = tmp_path / "programs"
    place.mkdir()
    running = []
    try:
        for name in ("etcd", "kube-scheduler", "kubelet"):
            (place / name).symlink_to(shutil.which("sleep") or "sleep")
            running.append(subprocess.Popen([place / name, "600"]))
        done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True)
    finally:
        for child in running:
            child.kill()
            child.wait()
    told = done.stdout
    for place_on_a_node, here in moved.items():
        told = told.replace(here, place_on_a_node)
    assert f"health=503 {HEALTH['etcd']}" in told.splitlines()
    found = parse(told, RECORD, time.time(), time.time()).processes
    assert {name: (found[name].young, found[name].works) for name in ("etcd", "kube-scheduler", "kubelet")} == {
        "etcd": (True, False), "kube-scheduler": (True, True), "kubelet": (True, False)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("version", "etcd", "scheduler"),
    [("1.28.0", "http://127.0.0.1:2381/health", "https://127.0.0.1:10259/healthz"),
     ("1.31.14", "http://127.0.0.1:2381/readyz", "https://127.0.0.1:10259/readyz")],
)  # fmt: skip
def test_what_older_programs_do_not_answer_they_are_not_asked(version: str, etcd: str, scheduler: str) -> None:
    script = probe(kubernetes(version=version))
    assert f"etcd) ask={etcd} ;;\n" in script
    assert f"kube-scheduler) ask={scheduler} ;;\n" in script
    stats = "process={} " + " ".join(map(str, range(30)))
    report = read(
        *(stats.format(name) for name in ("etcd", "kube-scheduler")), f"health=200 {etcd}", f"health=200 {scheduler}"
    )
    assert report.processes["etcd"].works
    assert report.processes["kube-scheduler"].works


def test_a_node_that_runs_none_of_them_asks_nobody(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script = probe(kubernetes()).replace("/proc/[0-9]*/comm", str(tmp_path / "none*"))
    (tmp_path / "curl").write_text(f"#!/bin/sh\ntouch {asked}\n")
    (tmp_path / "curl").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, env=env, check=True)
    assert not asked.exists()


def output(*lines: str) -> str:
    return "\n".join(("begin=100.00", *lines, "end=101.00", "now=5000.0"))


def read(*lines: str, **changes: Any) -> NodeReport:
    return parse(output(*lines), replace(RECORD, **changes), 4998.0, 5001.0)


def test_files() -> None:
    report = read(
        "subnet=yes", "cni=/etc/cni/net.d/10-flannel.conflist", "swap=/dev/sda2",
        "manifest=2300 4960 /etc/kubernetes/manifests/etcd.yaml",
        "manifest=0 4970 /etc/kubernetes/manifests/kube-apiserver.yaml",
        "manifest=2300 5003 /etc/kubernetes/manifests/kube-scheduler.yaml",
    )  # fmt: skip
    assert report.subnet
    assert report.cni == ("/etc/cni/net.d/10-flannel.conflist",)
    assert report.manifests == {"etcd": 40.0, "kube-scheduler": 0.0}
    assert report.swap == ("/dev/sda2",)


def process(name: str, started: int | str) -> str:
    """As in /proc/PID/stat behind the name: state and 18 numbers, then when it started, in hundredths of a second."""
    return f"process={name} S {' '.join('7' * 18)} {started} 99"


def test_how_long_a_program_has_run_and_whether_it_answers() -> None:
    report = read(
        process("etcd", 4000), process("kube-controller", 9950), process("kube-scheduler", "?"), process("kubelet", 1),
        "process=", "process=kube-apiserver", "health=200 https://127.0.0.1:10257/healthz",
        "health=503 http://127.0.0.1:2381/readyz", "health=000 https://127.0.0.1:10259/readyz", "health=",
    )  # fmt: skip
    # The kernel cuts a process's name. The node had been up for 100 seconds when it was asked.
    assert report.processes == {
        "etcd": Process(60.0),
        "kube-apiserver": Process(),
        "kube-controller-manager": Process(0.5, works=True),
        "kube-scheduler": Process(),
        "kubelet": Process(99.99),
    }
    assert report.processes["kube-controller-manager"].young
    assert not report.processes["etcd"].young
    assert not report.processes["kube-scheduler"].young


def test_of_two_with_one_name_the_younger_counts() -> None:
    assert read(process("etcd", 1), process("etcd", 9000)).processes == {"etcd": Process(10.0)}


def test_a_process_that_begins_while_the_node_is_asked_has_no_negative_age() -> None:
    assert read(process("etcd", 10050)).processes == {"etcd": Process(0.0)}


def test_what_is_not_told_is_not_guessed() -> None:
    report = read("disk=", "inodes=-")
    assert (report.disk, report.inodes, report.images, report.swap, report.subnet) == (None, None, None, (), False)
    assert report.processes == {}
    assert parse("", RECORD, 0, 1).clock is None
    assert parse(process("etcd", 1), RECORD, 0, 1).processes == {"etcd": Process()}


def test_certificates_in_files_and_in_kubeconfigs(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "lab")
    load_or_make(folder)
    pem = admin_files(folder).certificate.read_text()
    der = "".join(line for line in pem.splitlines() if not line.startswith("-"))
    whole = base64.b64encode(pem.encode()).decode()
    now = time.time()
    text = output(
        f"certificate=/a.crt {der}", f"certificate=/b.conf {whole}", "certificate=/c.crt !!", "certificate=/d"
    ).replace("now=5000.0", f"now={now + 400 * 24 * 3600}")  # the guest's clock stands there, whatever the host's
    found = parse(text, RECORD, now, now).certificates
    assert [file for file, _ in found] == ["/a.crt", "/b.conf"]
    assert all(days == pytest.approx(365 - 400, abs=1) for _, days in found)


def test_the_script_reads_certificates_but_no_keys(tmp_path: Path) -> None:
    """The kubelet keeps both in one file, a kubeconfig too."""
    folder = LabFolder(tmp_path / "lab")
    load_or_make(folder)
    files = admin_files(folder)
    place = tmp_path / "etc" / "pki"
    place.mkdir(parents=True)
    (place / "both.crt").write_text(files.certificate.read_text() + files.key.read_text())
    data = base64.b64encode(files.certificate.read_bytes()).decode()
    key = base64.b64encode(files.key.read_bytes()).decode()
    (tmp_path / "etc" / "admin.conf").write_text(
        f"users:\n- user:\n    client-certificate-data: {data}\n    client-key-data: {key}\n"
    )
    script = probe(kubernetes()).replace("/etc/kubernetes", str(tmp_path / "etc"))
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True)
    report = parse(done.stdout, RECORD, time.time(), time.time())
    assert [Path(file).name for file, _ in report.certificates] == ["both.crt", "admin.conf"]
    assert key not in done.stdout
    secret = "".join(files.key.read_text().splitlines()[1:-1])
    assert secret not in done.stdout.replace("\n", "")


def test_the_clock_is_judged_by_the_middle_of_the_way() -> None:
    """Asked from 4998 to 5001; the script took one second of it and read the clock at its end, at 4999 to 5001."""
    clock = read().clock
    assert clock is not None
    assert (clock.offset, clock.uncertainty) == (0.0, 1.0 + UPTIME_STEP)


def test_slower_clocks_are_judged_by_their_own_timeline() -> None:
    clock = parse(output(), replace(RECORD, dilation=0.5, epoch=4000.0), 5996.0, 6004.0).clock
    assert clock is not None
    # At 5996 the guests are at 4998, at 6004 at 5002; the script took one second of theirs.
    assert (clock.offset, clock.uncertainty) == (-0.5, 1.5 + UPTIME_STEP)


class Nodes:
    """Machines that answer ssh as the test says."""

    def __init__(self, **answers: Completed | MachineError) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Sequence[str], str | None]] = []

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | None = None
    ) -> Completed:
        self.asked.append((node, command, stdin))
        answer = self.answers[node]
        if isinstance(answer, MachineError):
            raise answer
        return answer


def test_each_node_is_asked_once_and_silence_is_told() -> None:
    machines: Any = Nodes(
        cp1=Completed((), 0, output("disk=10"), ""),
        w1=MachineError("w1 does not answer ssh", details=["first", "No route to host"]),
        w2=Completed((), 1, "begin=1\n", "sudo: a password is required"),
    )
    found = ask_nodes(machines, RECORD, ["cp1", "w1", "w2"], kubernetes())
    report = found["cp1"]
    assert isinstance(report, NodeReport)
    assert report.disk == 10
    assert found["w1"] == "w1 does not answer ssh; No route to host"
    assert found["w2"] == "its report is incomplete: exit code 1; sudo: a password is required"
    assert sorted(machines.asked) == [(name, ["sudo", "sh", "-s"], probe(kubernetes())) for name in ("cp1", "w1", "w2")]


def test_nobody_to_ask() -> None:
    machines: Any = Nodes()
    assert ask_nodes(machines, RECORD, [], kubernetes("docker")) == {}


WHOLE = output(
    *("disk=40", "free=1000", "inodes=3", "swap=/dev/sda", "address=10.0.0.1/24", "subnet=yes", "cni=/etc/cni/x"),
    *("manifest=100 4000 /etc/kubernetes/manifests/etcd.yaml", "image=x", "images=seen", "health=200 url"),
    *("process=etcd " + " ".join(str(number) for number in range(30)), "certificate=/a.crt AAAA", "unit.Id=kubelet"),
)
BITS = (
    "",
    " ",
    "=",
    "\n",
    "nan",
    "inf",
    "-1",
    "1e400",
    "9" * 5000,
    "\x1b[2J",
    "\u0663",
    "manifest=",
    "now=",
    "x" * 20_000,
)


@pytest.mark.parametrize("seed", range(20))
def test_a_nodes_answer_of_any_shape_is_read(seed: int) -> None:
    chosen = random.Random(seed)  # noqa: S311 - the same mutations each time
    for _ in range(100):
        text = WHOLE
        for _ in range(chosen.randint(1, 4)):
            begin = chosen.randrange(len(text))
            text = text[:begin] + chosen.choice(BITS) + text[begin + chosen.choice((0, 1, 5, 30)) :]
        report = parse(text, RECORD, 4998.0, 5001.0)
        assert all(math.isfinite(age) for age in report.manifests.values())
        assert report.clock is None or math.isfinite(report.clock.offset)


def test_a_line_that_is_none_of_the_scripts_is_left_out() -> None:
    lines = ("manifest=", "manifest=1", "manifest=1 2", "manifest=x y z", "manifest=100 4990 /m/kube-apiserver.yaml")
    assert read(*lines).manifests == {"kube-apiserver": 10.0}


def test_no_more_is_kept_than_a_node_has_to_say() -> None:
    report = read(*["image=x"] * 5000, "images=seen", f"kubelet={'x' * 20_000}", f"swap={'x' * 20_000}")
    assert report.images is not None
    assert len(report.images) == MOST_LINES
    assert (report.kubelet, report.swap) == ("", ())
