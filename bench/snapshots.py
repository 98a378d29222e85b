"""Snapshots: how long a lab is paused, how long a restore takes, and how much space ten of them take.

    .venv/bin/python -m bench.snapshots                              labs of one and of three nodes, made and destroyed
    .venv/bin/python -m bench.snapshots --scenario ha-3m2w --add     one of five as well, into the same table
    .venv/bin/python -m bench.snapshots --home DIR --lab NAME --add  an existing lab, in the KLAB_HOME DIR

An existing lab must have no snapshots, and is left as it was. The ways take
turns: each round does all of them once.

- **dd** writes as many bytes as the RAM images of the first snapshot have, with fsync, to the disk
  that they lie on, while the nodes are paused as they are for klab.
- **virsh restore** restores one node that `virsh save` has ended, while the others are paused.
  It verifies nothing.
- **vagrant snapshot restore** of vagrant-libvirt 0.11 (lib/vagrant-libvirt/driver.rb) is libvirt's
  revert to an internal snapshot, machine by machine. It verifies nothing and sets no clock.
- What klab does after the lab is verified (digests of the automatic snapshot, the watch over the
  leases) is not counted: the lab is in use by then.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from bench.create import KLAB, NAME, POOL, bench_home, say
from bench.measure import HEADER, Pair, wall_seconds
from lab.app.labs import Labs, reach
from lab.machines.captures import PartKind
from lab.machines.vagrant.command import environment
from lab.plan.names import domain_name
from lab.snapshots.store import SnapshotStore
from lab.store import Home

SINGLE = str(Path(__file__).parent / "single.yaml")
SCENARIOS = (SINGLE, "1m2w")
RESULTS = Path(tempfile.gettempdir()) / "klab-bench-snapshots.json"
SNAPSHOTS = 10
ROUNDS = 3
PREFIX = "bench-"
MIB = 1 << 20
# What is measured, by its name in the results.
FREEZE, DD = "stands still", "dd with fsync"
BACK, BACK_SAVED, BACK_OLDEST = "restore --no-save", "restore", "restore --no-save of the oldest"
VIRSH, VAGRANT = "virsh restore of the slowest node", "vagrant snapshot restore"
ONE, ALL, POOL_BEFORE, POOL_AFTER = "the first snapshot", "all snapshots", "the pool before", "the pool after"
# What a restore does once the lab is verified.
AFTERWARDS = ("digests of the automatic snapshot", "leases")


@dataclass(frozen=True)
class Measured:
    """One lab: by what was measured the seconds of each round, and the bytes on disk. `count` snapshots were taken."""

    scenario: str
    nodes: int
    count: int
    seconds: Mapping[str, Sequence[float]]
    space: Mapping[str, int]

    def has(self, *names: str) -> bool:
        return all(self.seconds.get(name) for name in names)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def pairs(measured: Sequence[Measured]) -> list[Pair]:
    """The comparisons that these labs allow: each by itself, then one with the other."""
    return [pair for lab in measured for pair in _own(lab)] + _growth(measured)


def _own(lab: Measured) -> Iterator[Pair]:
    nodes = "1 node" if lab.nodes == 1 else f"{lab.nodes} nodes"
    comparisons = (
        (f"{nodes} paused / dd with fsync of as many bytes", FREEZE, DD, 1.5),
        (f"{nodes} back, `--no-save` / `virsh restore` of the slowest alone", BACK, VIRSH, 3.0),
        (f"{nodes} back, kept before / `virsh restore` of the slowest alone", BACK_SAVED, VIRSH, 3.0),
        (f"{nodes} back, `--no-save` / `vagrant snapshot restore`", BACK, VAGRANT, 1.0),
        (f"{nodes} back, kept before / `vagrant snapshot restore`", BACK_SAVED, VAGRANT, 1.0),
        (f"{nodes} back at the first of {lab.count} snapshots / at the last", BACK_OLDEST, BACK, None),
    )
    for what, klab, peer, at_most in comparisons:
        if lab.has(klab, peer):
            yield Pair(what, lab.median(klab), lab.median(peer), at_most)
    if lab.count > 1 and ONE in lab.space:
        one, all_ = lab.space[ONE] / MIB, lab.space[ALL] / MIB
        yield Pair(f"space of {lab.count} snapshots of {nodes} / of one", all_, one, 2.0, "MiB")


def _growth(measured: Sequence[Measured]) -> list[Pair]:
    """Larger labs against the smallest: their time must grow slower than the number of their nodes."""
    labs = sorted((lab for lab in measured if lab.has(BACK)), key=lambda lab: lab.nodes)
    return [
        Pair(
            f"{lab.nodes} nodes back, `--no-save` / {labs[0].nodes}",
            lab.median(BACK),
            labs[0].median(BACK),
            lab.nodes / labs[0].nodes,
        )
        for lab in labs[1:]
    ]


def until_ready(wall: float, seconds: Mapping[str, float]) -> float:
    """Of a whole `klab restore` the part until the lab was verified to be there."""
    return wall - sum(seconds.get(part, 0.0) for part in AFTERWARDS)


def last_object(text: str) -> dict[str, Any]:
    """The result that klab printed: after its events, or all there is, over several lines."""
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        found = json.loads(text.splitlines()[-1])
    return found


def merged(before: Sequence[Measured], new: Sequence[Measured]) -> list[Measured]:
    """The labs of both; a new one replaces one of as many nodes."""
    found = {lab.nodes: lab for lab in (*before, *new)}
    return [found[nodes] for nodes in sorted(found)]


def to_json(measured: Sequence[Measured]) -> str:
    rows = [{**asdict(pair), "ratio": pair.ratio, "verdict": pair.verdict} for pair in pairs(measured)]
    cores = os.cpu_count()
    return json.dumps({"cores": cores, "labs": [asdict(lab) for lab in measured], "pairs": rows}, indent=2) + "\n"


def from_json(text: str) -> list[Measured]:
    return [Measured(**lab) for lab in json.loads(text)["labs"]]


# --- one lab ----------------------------------------------------------------------------------------


class Bench:
    """A lab that runs, without snapshots; this process is where its libvirt is."""

    def __init__(self, home: Home, name: str) -> None:
        os.environ["KLAB_HOME"] = str(home.root)
        found = Labs(home).find(name)
        reach(found)
        self.name, self.folder, self.plan = name, found.folder, found.plan
        self.domains = [domain_name(found.plan, node.name) for node in found.plan.nodes]
        self.captures = found.machines().captures()
        self.snapshot_store = SnapshotStore(found.folder)
        self.pool = POOL / f"klab-{found.record.id}"
        if self.snapshot_store.manifests():
            raise click.ClickException(f"lab {name} has snapshots; klab snapshot prune {name} --keep 0 removes them")
        self.seconds: dict[str, list[float]] = {}
        self.space: dict[str, int] = {}

    def note(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)
        say(f"{self.name}: {what}: {seconds:.2f} s")

    # --- klab's side ------------------------------------------------------------------------------

    def klab(self, *words: str) -> tuple[float, dict[str, Any]]:
        """Wall seconds of a klab command, and its result."""
        began = time.monotonic()
        done = subprocess.run([KLAB, *words, "--json"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise click.ClickException(f"klab {' '.join(words)}: {done.stderr}")
        wall = time.monotonic() - began
        return wall, last_object(done.stdout)

    def take(self, name: str) -> None:
        """Take a snapshot, and note how long the lab was paused, by its manifest."""
        self.klab("snapshot", self.name, name)
        self.note(FREEZE, self.snapshot_store.pick(name).frozen)

    def back(self, what: str, *words: str) -> None:
        """Bring the lab back, and note how long it took until it was verified to be there."""
        wall, result = self.klab("restore", self.name, *words)
        if self.plan.bootstrap == "full":
            assert result["verified"], "the lab was not Ready when the snapshot was taken"
        self.note(what, until_ready(wall, result["seconds"]))

    def held(self) -> int:
        """Bytes on disk of the files that the snapshots consist of."""
        parts = {p.name: p.size for m in self.snapshot_store.manifests() for p in self.captures.parts(m.id)}
        return sum(parts.values())

    def ram(self, name: str) -> int:
        """Bytes on disk of a snapshot's RAM images."""
        parts = self.captures.parts(self.snapshot_store.pick(name).id)
        return sum(part.size for part in parts if part.kind == PartKind.MEMORY)

    def pool_bytes(self) -> int:
        return sum(file.stat().st_blocks * 512 for file in self.pool.iterdir())

    # --- the others' ------------------------------------------------------------------------------

    def dd(self, size: int) -> float:
        """Seconds to write so many bytes to the disk where RAM images lie."""
        target = POOL / "klab-bench.dd"
        words = ["dd", "if=/dev/zero", f"of={target}", "bs=4M", "iflag=count_bytes", f"count={size}", "conv=fsync"]
        try:
            with self.still(self.domains):
                return wall_seconds(words)
        finally:
            target.unlink(missing_ok=True)

    def virsh_restore(self) -> float:
        """Seconds that `virsh restore` takes for the node for which it takes longest."""
        return max(self._virsh_restore(domain) for domain in self.domains)

    def _virsh_restore(self, domain: str) -> float:
        image = POOL / "klab-bench.save"
        with self.still([other for other in self.domains if other != domain]):
            virsh("save", domain, str(image))
            try:
                return wall_seconds([*VIRSH_WORDS, "restore", str(image)])
            finally:
                image.unlink()

    def vagrant_restore(self) -> float:
        """Seconds that `vagrant snapshot restore` takes for the lab."""
        env = {**os.environ, **environment(self.folder.path)}
        name = f"{PREFIX}vagrant"
        subprocess.run(["vagrant", "snapshot", "save", name], check=True, stdout=sys.stderr, env=env)
        try:
            return wall_seconds(["vagrant", "snapshot", "restore", name], env=env)
        finally:
            subprocess.run(["vagrant", "snapshot", "delete", name], check=True, stdout=sys.stderr, env=env)

    @contextlib.contextmanager
    def still(self, domains: Sequence[str]) -> Iterator[None]:
        """Pause nodes meanwhile."""
        suspended: list[str] = []
        try:
            for domain in domains:
                virsh("suspend", domain)
                suspended.append(domain)
            yield
        finally:
            for domain in suspended:
                virsh("resume", domain)

    # --- in turn ----------------------------------------------------------------------------------

    def freezes(self, count: int) -> None:
        """Take snapshots, each followed by its peer."""
        self.space[POOL_BEFORE] = self.pool_bytes()
        size = 0
        for number in range(1, count + 1):
            self.take(f"{PREFIX}{number}")
            if number == 1:
                self.space[ONE], size = self.held(), self.ram(f"{PREFIX}1")
            self.note(DD, self.dd(size))
        self.space[ALL], self.space[POOL_AFTER] = self.held(), self.pool_bytes()

    def restores(self, count: int, rounds: int, *, all_ways: bool) -> None:
        """Bring the lab back in each way, round by round."""
        newest = f"{PREFIX}{count}"
        for _ in range(rounds):
            self.back(BACK, newest, "--no-save")
            self.note(VIRSH, self.virsh_restore())
            if all_ways:
                self.back(BACK_OLDEST, f"{PREFIX}1", "--no-save")
                self.note(VAGRANT, self.vagrant_restore())
                self.back(BACK_SAVED, newest)

    def leave(self) -> None:
        """Bring the lab back to where it was, without snapshots."""
        if any(manifest.name == f"{PREFIX}1" for manifest in self.snapshot_store.manifests()):
            self.klab("restore", self.name, f"{PREFIX}1", "--no-save")
            self.klab("snapshot", "prune", self.name, "--keep", "0")


VIRSH_WORDS = ("virsh", "-q", "-c", "qemu:///system")


def virsh(*words: str) -> None:
    subprocess.run([*VIRSH_WORDS, *words], check=True, stdout=sys.stderr)


def measure(home: Home, name: str, *, count: int, rounds: int, all_ways: bool) -> Measured:
    """Measure a lab that runs, and leave it as it was.

    Args:
        home: the KLAB_HOME that it is in.
        name: its own.
        count: how many snapshots.
        rounds: how often it is restored in each way.
        all_ways: whether in all ways, or only in those that tell how the time grows with the number of nodes.
    """
    bench = Bench(home, name)
    try:
        bench.freezes(count)
        bench.restores(count, rounds, all_ways=all_ways)
    finally:
        bench.leave()
    return Measured(bench.plan.scenario, len(bench.plan.nodes), count, bench.seconds, bench.space)


def measure_own(scenario: str, results: Path, words: Sequence[str]) -> None:
    """Make a lab, let another process measure it, destroy it.

    Another one, since a process inside the private libvirt keeps it from ending with its last lab.
    """
    home = bench_home()
    try:
        say(f"klab create {scenario}")
        subprocess.run([KLAB, "create", scenario, "--name", NAME], check=True, stdout=sys.stderr)
        own = [sys.executable, "-m", "bench.snapshots", "--home", str(home.root), "--lab", NAME, *words]
        subprocess.run([*own, "--add", "--json", str(results)], check=True, stdout=sys.stderr)
    finally:
        subprocess.run([KLAB, "destroy", "-y", NAME], check=False, stdout=sys.stderr)
        shutil.rmtree(home.root, ignore_errors=True)


@click.command()
@click.option("--home", type=click.Path(path_type=Path, exists=True), help="The KLAB_HOME of a lab that is there.")
@click.option("--lab", help="Its name.")
@click.option("--scenario", "scenarios", multiple=True, default=SCENARIOS, help="What labs to make otherwise.")
@click.option("--snapshots", "count", type=click.IntRange(min=1), default=SNAPSHOTS, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
@click.option("--growth", is_flag=True, help="Only what tells how the time grows with the number of nodes.")
@click.option("--json", "results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--add", is_flag=True, help="To what that file holds already.")
def main(
    home: Path | None,
    lab: str | None,
    scenarios: Sequence[str],
    count: int,
    rounds: int,
    growth: bool,
    results: Path,
    add: bool,
) -> None:
    if (home is None) != (lab is None):
        raise click.UsageError("--home and --lab belong together")
    if not add:
        results.unlink(missing_ok=True)
    if home is not None and lab is not None:
        count = 1 if growth else count
        found = measure(Home(home.absolute()), lab, count=count, rounds=rounds, all_ways=not growth)
        before = from_json(results.read_text()) if results.exists() else []
        results.write_text(to_json(merged(before, [found])))
    else:
        for scenario in scenarios:
            words = ["--rounds", str(rounds), "--snapshots", str(count)]
            # All of it is measured with one lab; others are for how the time grows.
            measure_own(scenario, results, [*words, "--growth"] if growth or scenario != "1m2w" else words)
    print(HEADER)
    for pair in pairs(from_json(results.read_text())):
        print(pair.row())
    print(f"\nIn numbers: {results}")


if __name__ == "__main__":
    main()
