"""Create a lab: a short list of steps, each of which may be done again.

    prepare -> power on -> watch -> pod network -> Ready -> add-ons -> clean up

Whatever ends klab half-way (Ctrl-C, kill -9, a power cut), the same `create` goes on from
what it finds: secrets are read back, machines converge, nodes bootstrap by themselves,
manifests are applied server-side.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lab.cluster.api import Api, UnreachableError
from lab.cluster.console import Console, open_consoles
from lab.cluster.diagnose import explain_failure, explain_timeout
from lab.cluster.events import Event, Journal
from lab.cluster.kubeconfig import write_kubeconfig
from lab.cluster.ready import Readiness, Requirement
from lab.cluster.secrets import load_or_make
from lab.errors import ClusterError, Conflict, LabError, MachineError
from lab.machines.protocol import HostProfile, Machines, NodeState
from lab.machines.seed import write_iso
from lab.plan import Plan
from lab.planfile import from_json, to_json
from lab.render.cloudinit import render_seed
from lab.render.flannel import manifest as flannel_manifest
from lab.store import Home, LabFolder, Record, write_atomic
from lab.waiting import Deadline

# Seconds until Ready, by default, where hardware virtualization works and where it does not.
TIMEOUT_ACCELERATED = 15 * 60.0
TIMEOUT_EMULATED = 60 * 60.0
POLL_SECONDS = 1.0
API_POLL_SECONDS = 3.0
STATE_POLL_SECONDS = 10.0
GONE_GRACE_SECONDS = 30.0

OpenMachines = Callable[[Home, LabFolder, Plan, Record, Path | None], Machines]


@dataclass(frozen=True, slots=True)
class Request:
    """What `create` is asked for. `addons` are the manifests' objects in order; `timeout` is seconds."""

    plan: Plan
    scenario_text: str
    provider: str
    profile: HostProfile
    box_name: str
    box_vagrant: Path | None
    timeout: float | None = None
    addons: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Created:
    """A lab that is there. `already` says that there was nothing left to do."""

    folder: LabFolder
    plan: Plan
    seconds: float
    already: bool


def create(
    home: Home, request: Request, open_machines: OpenMachines, listener: Callable[[Event], None] | None = None
) -> Created:
    """Bring the lab to where its scenario wants it; returns when every requirement holds.

    Raises:
        Conflict: a different lab has this name, or another klab works on it.
        MachineError, ClusterError, NotReadyInTime: with the node, the phase, its log, and what to try.
        The lab is left as it is then: `create` again goes on, `destroy` removes it.
    """
    began = time.monotonic()
    folder = home.lab(request.plan.name)
    with folder.lock():
        record, already = _prepare(folder, request)
        journal = Journal(folder.events, listener)
        journal.add("", "create", "begin", "again" if already else "")
        machines = open_machines(home, folder, request.plan, record, request.box_vagrant)
        _Creation(folder, request, machines, journal, record, fresh=not already).run()
        folder.update_record(phase="ready")
        journal.add("", "create", "done")
    return Created(folder, request.plan, time.monotonic() - began, already and record.phase == "ready")


def _prepare(folder: LabFolder, request: Request) -> tuple[Record, bool]:
    """Everything that stands on disk before the first VM: idempotent. Returns the record and whether it was there."""
    plan = request.plan
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
    write_atomic(folder.path / "scenario.yaml", request.scenario_text)
    write_atomic(folder.path / "plan.json", to_json(plan))
    folder.write_record(record)
    return record, False


def _refuse_conflict(folder: LabFolder, record: Record, plan: Plan) -> None:
    if record.phase == "destroying":
        raise Conflict(f"lab {folder.name!r} is half destroyed", hint=f"klab destroy -y {folder.name} finishes that")
    there = from_json((folder.path / "plan.json").read_text())
    if there != plan:
        raise Conflict(
            f"a lab called {folder.name!r} exists, made from another scenario or seat",
            details=_differences(there, plan),
            hint=f"choose another name with --name, or klab destroy {folder.name} first",
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

    def __init__(
        self, folder: LabFolder, request: Request, machines: Machines, journal: Journal, record: Record, *, fresh: bool
    ) -> None:
        self.folder = folder
        self.plan = request.plan
        self.request = request
        self.machines = machines
        self.journal = journal
        self.record = record
        self.fresh = fresh
        default = TIMEOUT_ACCELERATED if record.accelerated else TIMEOUT_EMULATED
        self.deadline = Deadline.after(request.timeout or default)
        self.consoles: dict[str, Console] = {}
        self._power: _PowerOn | None = None
        self._gone_since: dict[str, float] = {}
        self._ready: set[str] = set()
        self._states_at = 0.0

    def run(self) -> None:
        secrets = load_or_make(self.folder)
        write_kubeconfig(self.folder, self.plan)
        if self._runs_already():
            self._cluster()
            return
        if self.record.phase == "creating":
            for node in self.plan.nodes:
                seed = render_seed(self.plan, node, secrets, patient=not self.record.accelerated)
                write_iso(seed, self.folder.seeds / f"{node.name}.iso")
        self._power = _PowerOn(self.machines, self.deadline, self.folder.logs / "up.log")
        try:
            self._power.start()
            self.consoles = open_consoles(self.machines.consoles())
            self._cluster()
            self._until(self._cleaned, "every node has finished its first boot")
            self._until(self._power.ended, "every machine answers")
        except BaseException:
            self._power.join()
            raise
        self.machines.drop_seeds()

    def _runs_already(self) -> bool:
        """Whether a finished lab only needs to be looked at: then Vagrant need not be asked."""
        return self.record.phase == "ready" and set(self.machines.states().values()) == {NodeState.RUNNING}

    # --- steps --------------------------------------------------------------------------------

    def _cluster(self) -> None:
        if self.plan.bootstrap != "full":
            return
        api = Api(self.folder, self.plan)
        readiness = Readiness(self.plan, api, self.machines, fresh=self.fresh)
        # A lab that was Ready before: an answer of each kubelet proves as much as its next lease, and at once.
        first, *others = readiness.requirements(leases=self.record.phase == "creating")
        self._require(first)
        if self.plan.kubernetes.cni == "flannel":
            self._apply("pod network", api, flannel_manifest(self.plan))
        for requirement in others:
            self._require(requirement, watch=lambda: self._note_ready(readiness))
        if self.request.addons:
            self._apply("add-ons", api, self.request.addons)

    def _require(self, requirement: Requirement, watch: Callable[[], None] | None = None) -> None:
        self.journal.add("", requirement.name, "begin")
        missing: list[str] = ["not asked yet"]

        def holds() -> bool:
            nonlocal missing
            try:
                missing = requirement.probe()
                if watch:
                    watch()
            except UnreachableError as error:
                missing = [error.message]
            return not missing

        self._until(holds, requirement.name, every=API_POLL_SECONDS, missing=lambda: missing, hint=requirement.hint)
        self.journal.add("", requirement.name, "done")

    def _note_ready(self, readiness: Readiness) -> None:
        """Note in the journal each node that has become Ready since the last look."""
        for name, why in readiness.conditions.items():
            if not why and name not in self._ready:
                self._ready.add(name)
                self.journal.add(name, "ready", "done")

    def _apply(self, what: str, api: Api, manifests: Sequence[Mapping[str, Any]]) -> None:
        self.journal.add("", what, "begin")
        pending = [dict(manifest) for manifest in manifests]
        missing: list[str] = []

        def apply_next() -> bool:
            nonlocal missing
            try:
                while pending:
                    api.apply(pending[0])
                    pending.pop(0)
            except UnreachableError as error:
                # 4xx says that the manifest is wrong, except while the cluster is still being set up.
                if 400 <= error.status < 500 and error.status not in {401, 403, 404, 409, 429}:
                    raise
                missing = [f"{pending[0]['kind']} {pending[0]['metadata']['name']}: {error.message}"]
            return not pending

        self._until(apply_next, f"{what} applied", every=API_POLL_SECONDS, missing=lambda: missing)
        self.journal.add("", what, "done")

    def _cleaned(self) -> bool:
        if self.record.phase == "ready":
            return True
        unfinished = [name for name, console in self.consoles.items() if "clean" not in console.finished]
        if not self._power_ended():
            return not unfinished
        # A console that cannot be read (another user's libvirtd) or was cut by a restart: ask the node itself.
        return all(self._asked_clean(name) for name in unfinished)

    def _asked_clean(self, name: str) -> bool:
        with contextlib.suppress(LabError):
            command = ["test", "-e", "/etc/cloud/cloud-init.disabled", "-a", "!", "-e", "/etc/klab"]
            if self.machines.ssh(name, command, timeout=60, check=False).code == 0:
                self.consoles[name].finished.add("clean")
                return True
        return False

    # --- waiting ------------------------------------------------------------------------------

    def _until(
        self,
        holds: Callable[[], bool],
        what: str,
        *,
        every: float = POLL_SECONDS,
        missing: Callable[[], list[str]] = list,
        hint: str = "",
    ) -> None:
        """Wait for one thing while watching for everything that makes waiting pointless."""
        while not holds():
            pause = time.monotonic() + every
            while True:
                self._look_for_trouble()
                if self.deadline.passed:
                    self._read_consoles()
                    raise explain_timeout(self.plan, what, missing(), self.folder, self.consoles, hint)
                if time.monotonic() >= pause:
                    break
                time.sleep(min(POLL_SECONDS, every))

    def _look_for_trouble(self) -> None:
        self._read_consoles()
        for console in self.consoles.values():
            if console.failed:
                raise explain_failure(self.plan, console)
        power = self._power
        if power is not None and power.error is not None:
            raise power.error
        if power is not None and power.ended() and time.monotonic() - self._states_at > STATE_POLL_SECONDS:
            self._states_at = time.monotonic()
            self._look_for_lost_machines()

    def _read_consoles(self) -> None:
        for console in self.consoles.values():
            console.read(self.journal)

    def _look_for_lost_machines(self) -> None:
        for name, state in self.machines.states().items():
            if state == NodeState.RUNNING:
                self._gone_since.pop(name, None)
                continue
            since = self._gone_since.setdefault(name, time.monotonic())
            if time.monotonic() - since > GONE_GRACE_SECONDS:
                raise MachineError(
                    f"the machine {name} is {state.value} although it was started",
                    details=self.consoles[name].tail() if name in self.consoles else (),
                    hint=f"klab create again starts it; klab logs {name} shows its console",
                )

    def _power_ended(self) -> bool:
        return self._power is not None and self._power.ended()


def _write(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()


class _PowerOn:
    """The machines' `up` in a thread: nodes bootstrap while Vagrant still waits for the slowest."""

    def __init__(self, machines: Machines, deadline: Deadline, log: Path) -> None:
        self.error: BaseException | None = None
        self._machines = machines
        self._deadline = deadline
        self._log = log
        self._thread = threading.Thread(target=self._up, name="power-on", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Stop it: what it has begun is left for the next `create`."""
        self._machines.cancel()
        self._thread.join(timeout=30)

    def ended(self) -> bool:
        """Whether it has come to its end without an error."""
        return not self._thread.is_alive() and self.error is None

    def _up(self) -> None:
        try:
            with self._log.open("a", encoding="utf-8") as out:
                self._machines.up(self._deadline, lambda line: _write(out, line))
        except LabError as error:
            self.error = error
        except Exception as error:
            self.error = ClusterError(f"powering on failed unexpectedly: {error!r}", hint="run again with --debug")
