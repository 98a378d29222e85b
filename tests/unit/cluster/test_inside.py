"""What a node tells of itself: the very script, run by this machine's shell with programs that answer as a node's."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.cluster.inside import SCRIPT, STATIC_PODS, UPTIME_STEP, NodeReport, Unit, ask_nodes, parse
from lab.cluster.secrets import admin_files, load_or_make
from lab.errors import MachineError
from lab.process import Completed
from lab.store import LabFolder, Record

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
}


def told(tmp_path: Path, **programs: str) -> NodeReport:
    """What the script, run here, says of a node whose programs are these."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {**PROGRAMS, **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    began = time.time()
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-s"], input=SCRIPT, capture_output=True, text=True, env=env, check=True)
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


def output(*lines: str) -> str:
    return "\n".join(("begin=100.00", *lines, "end=101.00", "now=5000.0"))


def read(*lines: str, **changes: Any) -> NodeReport:
    return parse(output(*lines), replace(RECORD, **changes), 4998.0, 5001.0)


def test_files_and_processes() -> None:
    report = read(
        "subnet=yes", "cni=/etc/cni/net.d/10-flannel.conflist", "manifest=etcd.yaml", "manifest=kube-apiserver.yaml",
        "process=etcd", "process=kube-controller", "swap=/dev/sda2", "process=",
    )  # fmt: skip
    assert report.subnet
    assert report.cni == ("/etc/cni/net.d/10-flannel.conflist",)
    assert report.manifests == ("etcd", "kube-apiserver")
    # The kernel cuts a process's name.
    assert report.processes == ("etcd", "kube-controller-manager")
    assert set(report.processes) <= set(STATIC_PODS)
    assert report.swap == ("/dev/sda2",)


def test_what_is_not_told_is_not_guessed() -> None:
    report = read("disk=", "inodes=-")
    assert (report.disk, report.inodes, report.images, report.swap, report.subnet) == (None, None, None, (), False)
    assert parse("", RECORD, 0, 1).clock is None


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
    script = SCRIPT.replace("/etc/kubernetes", str(tmp_path / "etc"))
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
    found = ask_nodes(machines, RECORD, ["cp1", "w1", "w2"])
    report = found["cp1"]
    assert isinstance(report, NodeReport)
    assert report.disk == 10
    assert found["w1"] == "w1 does not answer ssh; No route to host"
    assert found["w2"] == "it did not tell all it was asked: exit code 1; sudo: a password is required"
    assert sorted(machines.asked) == [(name, ["sudo", "sh", "-s"], SCRIPT) for name in ("cp1", "w1", "w2")]


def test_nobody_to_ask() -> None:
    machines: Any = Nodes()
    assert ask_nodes(machines, RECORD, []) == {}
