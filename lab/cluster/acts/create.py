"""Create a lab: a short list of steps, each of which may be done again.

    prepare -> power on -> watch -> pod network -> Ready -> add-ons -> clean up

Whatever ends klab half-way (Ctrl-C, kill -9, a power cut), the same `create` goes on from
what it finds: secrets are read back, machines converge, nodes bootstrap by themselves,
manifests are applied server-side.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.cluster.events import Journal
from lab.cluster.kubeconfig import write_kubeconfig
from lab.cluster.lab import Lab, refuse_half_destroyed
from lab.cluster.observe.expiry import refuse_expired
from lab.cluster.secrets import load_or_make
from lab.cluster.wait.ready import Readiness
from lab.cluster.wait.watch import Watch
from lab.components.cni import network
from lab.disks.seed_iso import write_iso
from lab.errors import Conflict, MachineError
from lab.host.profile import HostProfile
from lab.machines.protocol import NodeState
from lab.plan.changes import same_but_for_nodes
from lab.plan.file import from_json, to_json
from lab.plan.model import Plan
from lab.render.cloudinit import render_seed
from lab.store import LabFolder, Record, write_atomic


@dataclass(frozen=True, slots=True)
class Request:
    """What `create` is asked for. `addons` are the manifests' objects in order."""

    scenario_text: str
    provider: str
    profile: HostProfile
    box_name: str
    box_vagrant: Path | None
    addons: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Created:
    """A lab that is there. `already` says that there was nothing left to do."""

    folder: LabFolder
    plan: Plan
    seconds: float
    already: bool


def create(lab: Lab, request: Request) -> Created:
    """Bring the lab to where its scenario wants it; returns when every requirement holds.

    Raises:
        Conflict: a different lab has this name, or another klab works on it.
        MachineError, ClusterError, NotReadyInTime: with the node, the phase, its log, and what to try;
        at once where the certificates of a lab that was Ready have expired.
        The lab is left as it is then: `create` again goes on, `destroy` removes it.
    """
    began = time.monotonic()
    with lab.folder.lock():
        record, already = _prepare(lab, request)
        journal = lab.journal()
        journal.add("", "create", "begin", "again" if already else "")
        _Creation(lab, request, journal, record).run()
        lab.folder.update_record(phase="ready")
        journal.add("", "create", "done")
    return Created(lab.folder, lab.plan, time.monotonic() - began, already and record.phase == "ready")


def _prepare(lab: Lab, request: Request) -> tuple[Record, bool]:
    """Everything that stands on disk before the first VM: idempotent. Returns the record and whether it was there."""
    folder, plan = lab.folder, lab.plan
    if folder.exists:
        record = folder.record()
        _refuse_conflict(folder, record, plan)
        return record, True
    record = Record(
        id=str(uuid.uuid4()),
        name=plan.name,
        provider=request.provider,
        box=request.box_name,
        seat=plan.seat,
        phase="creating",
        created=time.time(),
        accelerated=request.profile.accelerated,
        dilation=request.profile.dilation,
        epoch=time.time(),
    )
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.path.chmod(0o700)
    folder.logs.mkdir(exist_ok=True)
    write_atomic(folder.scenario_file, request.scenario_text)
    write_atomic(folder.plan_file, to_json(plan))
    folder.write_record(record)
    return record, False


def _refuse_conflict(folder: LabFolder, record: Record, plan: Plan) -> None:
    refuse_half_destroyed(folder, record)
    there = from_json(folder.plan_text())
    if there == plan:
        return
    way = f"choose another name with --name, or klab destroy {folder.name} first"
    if same_but_for_nodes(there, plan):
        way = f"klab scale {folder.name} changes its size; else {way}"
    raise Conflict(
        f"a lab called {folder.name!r} exists, made from another scenario or seat",
        details=_differences(there, plan),
        hint=way,
    )


def _differences(there: Plan, wanted: Plan) -> list[str]:
    lines = []
    for key in ("scenario", "seat", "box", "bootstrap", "nodes", "networks", "kubernetes", "mirrors", "addons"):
        old, new = getattr(there, key), getattr(wanted, key)
        if old == new:
            continue
        if key == "nodes":
            old = ", ".join(f"{n.name} ({n.cpus} CPU, {n.memory} MiB, {n.address})" for n in old)
            new = ", ".join(f"{n.name} ({n.cpus} CPU, {n.memory} MiB, {n.address})" for n in new)
        lines.append(f"{key}: {old} -> {new}")
    return lines


class _Creation:
    """One run of create, over one lab."""

    def __init__(self, lab: Lab, request: Request, journal: Journal, record: Record) -> None:
        self.lab = lab
        self.folder = lab.folder
        self.plan = lab.plan
        self.request = request
        self.machines = lab.machines(record, request.box_vagrant)
        self.record = record
        self.watch = Watch(lab.folder, lab.plan, self.machines, journal, lab.deadline(record))

    def run(self) -> None:
        secrets = load_or_make(self.folder)
        write_kubeconfig(self.folder, self.plan)
        if self.record.phase == "ready":
            states = self.machines.states()
            self._refuse_absent([name for name, state in states.items() if state == NodeState.ABSENT])
            # Whether it only needs to be looked at: then Vagrant need not be asked.
            if set(states.values()) == {NodeState.RUNNING}:
                self._refuse_expired()
                self._cluster()
                return
        if self.record.phase == "creating":
            for node in self.plan.nodes:
                seed = render_seed(self.plan, node, secrets, slow_host=not self.record.accelerated)
                write_iso(seed, self.folder.seeds / f"{node.name}.iso")
        try:
            self.watch.power_on()
            if self.record.phase == "ready":
                self.watch.until(self.watch.powered, "every machine answers")
                self._refuse_expired()
            self._cluster()
            if self.record.phase == "creating":
                self.watch.until(self.watch.cleaned, "every node has finished its first boot")
            self.watch.until(self.watch.powered, "every machine answers")
        except BaseException:
            self.watch.stop()
            raise
        self.machines.drop_seeds()

    def _refuse_absent(self, nodes: Sequence[str]) -> None:
        """A machine that is made now would have no seed: the cluster has used it up, and its token."""
        if not nodes:
            return
        anew = f"klab destroy -y {self.folder.name} and the same command again make the lab anew"
        if self.plan.bootstrap == "full":
            anew = f"klab node replace {self.folder.name} {nodes[0]} makes it anew"
        raise MachineError(f"{self.folder.name} was made to its end, but {', '.join(nodes)} has no machine", hint=anew)

    def _refuse_expired(self) -> None:
        """Ask a lab that is to be Ready again whether it can be: its nodes, so they have to run."""
        if self.plan.bootstrap == "full":
            names = [n.name for n in self.plan.nodes]
            refuse_expired(self.folder, self.plan, self.record, self.machines, names, self.watch.deadline)

    def _cluster(self) -> None:
        if self.plan.bootstrap != "full":
            return
        api = self.lab.api()
        readiness = Readiness(self.plan, api, self.machines)
        first, *others = readiness.requirements()
        self.watch.require(first)
        if manifest := network(self.plan.kubernetes.cni).manifest(self.plan):
            self.watch.apply("pod network", api, manifest)
        for requirement in others:
            self.watch.require(requirement, readiness)
        if self.request.addons:
            self.watch.apply("add-ons", api, self.request.addons)
