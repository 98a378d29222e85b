"""`klab create 1m2w` against the classroom recipe, and against what no tool could beat on this machine.

    .venv/bin/python -m bench.create

Both sides run on the same host, under the same hypervisor, from the same disk and the same
binaries and images, one after the other. Takes the better part of an hour under emulation.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import http.server
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.measure import HEADER, Pair
from lab.boxes.debian import sources
from lab.boxes.recipe import load_recipe
from lab.boxes.store import find_box
from lab.cluster.secrets import load_or_make
from lab.components.cni.flannel import cni_configuration
from lab.disks.seed_iso import write_iso
from lab.host.emulation.slow_clock import ensure_library
from lab.host.network import enter_host_network
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.providers import provider_named
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.cloudinit import render_seed
from lab.render.kubeadm import render_init, render_join
from lab.render.pod_network import render_manifest
from lab.scenario.catalog import load_catalog
from lab.scenario.library import load_scenario
from lab.store import Home, LabFolder

HERE = Path(__file__).parent / "classroom"
KLAB = str(Path(sys.executable).parent / "klab")
NAME = "bench"
# What a hand-out has its readers install on a fresh Debian, beside Kubernetes' own programs.
PACKAGES = (
    "containerd", "runc", "containernetworking-plugins", "conntrack", "iptables", "nftables", "ethtool", "socat",
)  # fmt: skip
POOL = Path("/var/lib/libvirt/images")
SOURCE = "http://192.168.56.1:8000"


def say(text: str) -> None:
    print(f"[bench] {text}", file=sys.stderr, flush=True)


def bench_home() -> Home:
    """A home of its own, with the person's boxes."""
    real = Home.default()
    home = Home(Path(tempfile.mkdtemp(prefix="klab-bench-")))
    for shared in ("boxes", "cache"):
        (home.root / shared).symlink_to(real.root / shared)
    os.environ["KLAB_HOME"] = str(home.root)
    return home


# --- klab's side ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """One `klab create`: seconds until all nodes were Ready, until klab returned, and of CPU: guests, klab, Vagrant."""

    ready: float
    returned: float
    cpu: float
    result: dict[str, Any]


def run_klab(scenario: str = "1m2w", *, name: str = NAME, keep: bool = False) -> Run:
    """Create a lab of a scenario, and destroy it unless it is to be kept."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.time()
    done = subprocess.run(
        [KLAB, "create", scenario, "--name", name, "--json"], check=True, capture_output=True, text=True
    )
    returned = time.time() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = guests_cpu_seconds(f"klab-{name}_")
    cpu += after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    if not keep:
        subprocess.run([KLAB, "destroy", "-y", name], check=True)
    *events, result = (json.loads(line) for line in done.stdout.splitlines())
    return Run(ready_at(events) - began, returned, cpu, result)


def ready_at(events: Sequence[Mapping[str, Any]]) -> float:
    """When every node was Ready, seconds since 1970, by the events of `klab create --json`."""
    for line in events:
        event = line["event"]
        if (event["phase"], event["state"]) == ("every node is Ready", "done"):
            return float(event["time"])
    raise ValueError("no event reports that every node is Ready")


def guests_cpu_seconds(prefix: str) -> float:
    """User and system seconds of the QEMU processes whose guests' names begin so (proc(5), stat)."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
            if not entry.name.isdigit() or f"guest={prefix}".encode() not in words:
                continue
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def critical_path(result: dict[str, Any]) -> float:
    """One VM's boot, its init, and one join that waited for nothing: from the end of init to its own end."""
    phases = {(p["row"], p["phase"]): p["seconds"] for p in result["phases"]}
    control = sum(phases["cp1", phase] for phase in ("boot", "cloud-init", "init"))
    joins = [sum(phases[w, phase] for phase in ("boot", "cloud-init", "join")) for w in ("w1", "w2")]
    return float(max(control, min(joins)))


# --- the classroom's side -------------------------------------------------------------------------


def run_classroom(home: Home) -> float:
    """Wall seconds until the recipe's three nodes are Ready."""
    catalog = load_catalog()
    loaded = load_scenario("1m2w", catalog)
    plan = decide(loaded.scenario, catalog, name="classroom")
    box = find_box(home, plan.box, plan.kubernetes.version)
    folder = home.lab("classroom")
    room = folder.path / "room"
    room.mkdir(parents=True)
    # From here on the machines' network is all there is: what comes from a mirror comes before.
    _packages(room, load_recipe(plan.box, plan.kubernetes.version).suite)
    enter_host_network(home)
    profile = provider_named("libvirt").profile(home, plan.cpus)
    _seeds(plan, folder)
    _fill(room, home, plan, folder)
    env = {
        **os.environ,
        "BENCH_BOX": f"klab/{box.folder.name.replace('@', '-')}",
        "BENCH_SEEDS": str(POOL),
        "BENCH_KEY": str(folder.ssh_key),
        "BENCH_SOURCE": SOURCE,
        "BENCH_DRIVER": "kvm" if profile.accelerated else "qemu",
        "BENCH_CPU_MODE": "host-model" if profile.accelerated else "custom",
        "VAGRANT_CWD": str(folder.path),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        **({} if profile.accelerated else {"BENCH_CPU_MODEL": "Haswell-noTSX"}),
    }
    if profile.dilation != 1.0:
        env |= {
            "BENCH_LIBRARY": str(ensure_library(home)),
            "BENCH_EPOCH": repr(time.time()),
            "BENCH_RATE": repr(profile.dilation),
        }
    for file in HERE.iterdir():
        shutil.copy(file, folder.path)
    log = (folder.path / "classroom.log").open("w")
    try:
        began = time.monotonic()
        for node in plan.nodes:
            subprocess.run(["vagrant", "up", node.name, "--provider", "libvirt", "--no-provision"], env=env, check=True,
                           stdout=log, stderr=log)  # fmt: skip
            if node is plan.nodes[0]:
                _serve(room)  # the room's network exists from the first machine on
            subprocess.run(["vagrant", "provision", node.name], env=env, check=True, stdout=log, stderr=log)
            say(f"classroom: {node.name} provisioned after {time.monotonic() - began:.0f} s")
        ask = "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes --no-headers"
        while True:
            done = subprocess.run(
                ["vagrant", "ssh", "cp1", "-c", ask], env=env, capture_output=True, text=True, check=False
            )
            if done.stdout.count(" Ready") == len(plan.nodes):
                return time.monotonic() - began
            time.sleep(2)
    finally:
        subprocess.run(["vagrant", "destroy", "-f"], env=env, check=False, stdout=log, stderr=log)
        log.close()


def _seeds(plan: Plan, folder: LabFolder) -> None:
    """Plain machines: names, addresses and the key, nothing of Kubernetes."""
    secrets = load_or_make(folder)
    for last, node in enumerate(plan.nodes, start=2):
        there = dataclasses.replace(node, mac=f"52:54:00:be:0b:{last:02x}", management_mac=f"52:54:00:be:0a:{last:02x}")
        nodes = tuple(there if n == node else n for n in plan.nodes)
        plain = dataclasses.replace(plan, nodes=nodes, bootstrap="prepared")
        write_iso(render_seed(plain, there, secrets), POOL / f"{node.name}.iso")
        (POOL / f"{node.name}.iso").chmod(0o644)


def _fill(room: Path, home: Home, plan: Plan, folder: LabFolder) -> None:
    """What the server in the room holds beside packages: binaries, one archive of images, configuration."""
    for program in ("kubeadm", "kubelet", "kubectl"):
        shutil.copy(next(home.cache.glob(f"programs/*/bin/{program}")), room / program)
    layout = max(home.cache.glob("images/*/index.json"), key=lambda p: p.stat().st_mtime).parent
    with tarfile.open(room / "images.tar", "w") as tar:
        for entry in sorted(layout.iterdir()):
            tar.add(entry, arcname=entry.name)
    secrets = load_or_make(folder)
    with tarfile.open(room / "pki.tar", "w") as tar:
        for name, text in secrets.control_plane_files.items():
            file = folder.path / "pki-tar" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            tar.add(file, arcname=f"pki/{name}")
    init = list(yaml.safe_load_all(render_init(plan, plan.nodes[0], secrets, slow_host=True)))
    del init[0]["patches"]  # klab's own; the hand-out has none
    (room / "init.yaml").write_text(yaml.safe_dump_all(init))
    for node in plan.workers:
        (room / f"join-{node.name}.yaml").write_text(render_join(plan, node, secrets, slow_host=True))
    (room / "10-flannel.conflist").write_text(cni_configuration())
    (room / "kube-flannel.yml").write_text(render_manifest(plan))


def _packages(room: Path, suite: str) -> None:
    """The Debian packages that the hand-out's nodes install, from the mirror that the box came from."""
    with tempfile.TemporaryDirectory() as state:
        (Path(state) / "sources.list").write_text("\n".join(sources(suite)) + "\n")
        options = [
            f"-o=Dir::State={state}", f"-o=Dir::Cache={state}/cache", f"-o=Dir::Etc::sourcelist={state}/sources.list",
            "-o=Dir::Etc::sourceparts=-", f"-o=Dir::State::status={state}/status", "-o=APT::Architecture=amd64",
            "-o=APT::Sandbox::User=root",
        ]  # fmt: skip
        (Path(state) / "status").touch()
        (Path(state) / "lists" / "partial").mkdir(parents=True)
        for words in (["update"], ["download", *PACKAGES]):
            subprocess.run(["apt-get", "-qq", *options, *words], check=True, cwd=room)
    files = sorted(room.glob("*.deb"))
    for number, file in enumerate(files):  # apt escapes colons in their names; curl would have to
        file.rename(room / f"{number}.deb")
    (room / "packages").write_text("".join(f"{number}.deb\n" for number in range(len(files))))


def _serve(room: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("192.168.56.1", 8000), functools.partial(Quiet, directory=str(room)))
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    home = bench_home()
    say("klab create 1m2w")
    run = run_klab()
    say(f"klab: nodes Ready after {run.ready:.0f} s, verified after {run.returned:.0f} s; {run.cpu:.0f} CPU seconds")
    cores = os.cpu_count() or 1
    path, cpu = critical_path(run.result), run.cpu / cores
    say(f"critical path {path:.0f} s, CPU seconds / {cores} cores {cpu:.0f} s")
    say("the classroom recipe")
    # In a process of its own: a process inside the private libvirt keeps it from ending.
    with concurrent.futures.ProcessPoolExecutor(1) as room:
        classroom = room.submit(run_classroom, home).result()
    PrivateLibvirt(home).stop()
    print(HEADER)
    print(
        Pair(
            "1m2w until all nodes are Ready / classroom recipe until all nodes are Ready", run.ready, classroom, 1 / 3
        ).row()
    )
    print(Pair("`create 1m2w` until it returns, verified / the same", run.returned, classroom, None).row())
    print(Pair("`create 1m2w` until it returns / its own lower bound", run.returned, max(path, cpu), 1.2).row())
    shutil.rmtree(home.root, ignore_errors=True)


if __name__ == "__main__":
    main()
