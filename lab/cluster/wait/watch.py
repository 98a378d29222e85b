"""Wait for a lab: for one thing at a time, while looking for everything that makes waiting pointless.

What create, start, scale and the rest share. A node that reports a failure on its console, a
machine that goes away, the deadline: each ends the wait at once, with an error that says which.
A machine that crashed before its node had done anything is started again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.events import Journal
from lab.cluster.wait.console import Console, open_consoles
from lab.cluster.wait.diagnose import explain_failure, explain_timeout
from lab.cluster.wait.ready import Readiness, Requirement
from lab.errors import ClusterError, LabError, MachineError, refusal
from lab.machines.protocol import Machines, NodeState
from lab.plan.model import Plan
from lab.store import LabFolder
from lab.waiting import Deadline

POLL_SECONDS = 1.0
# Each question costs the API server work that a slow guest needs for starting.
API_POLL_SECONDS = 2.0
STATE_POLL_SECONDS = 10.0
GONE_GRACE_SECONDS = 30.0
# How often one crashed machine is started again. QEMU without KVM now and then ends while firmware or kernel move a
# device's memory: "iotlb_to_section: Assertion ... failed" (QEMU issue 1921).
STARTS_AGAIN = 3


class Watch:
    """One run of a command that waits. `nodes` are those it waits for; a machine of another node may be off."""

    def __init__(
        self,
        folder: LabFolder,
        plan: Plan,
        machines: Machines,
        journal: Journal,
        deadline: Deadline,
        nodes: Sequence[str] | None = None,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.machines = machines
        self.journal = journal
        self.deadline = deadline
        self.nodes = tuple(nodes if nodes is not None else (n.name for n in plan.nodes))
        self.consoles: dict[str, Console] = {}
        self._power: PowerOn | None = None
        self._gone_since: dict[str, float] = {}
        self._crashes: dict[str, int] = {}
        self._ready: set[str] = set()
        self._states_at = 0.0

    # --- machines -----------------------------------------------------------------------------

    def power_on(self) -> None:
        """Make and start the machines in a thread of their own, and follow the nodes' consoles meanwhile."""
        self._power = PowerOn(self.machines, self.nodes, self.deadline, self.folder.logs / "up.log")
        self._power.start()
        self.consoles = open_consoles({n: f for n, f in self.machines.consoles().items() if n in self.nodes})

    def powered(self) -> bool:
        """Whether every machine that `power_on` was to start has answered."""
        return self._power is None or self._power.ended()

    def stop(self) -> None:
        """Stop what `power_on` has begun; what is there stays for the next try."""
        if self._power is not None:
            self._power.join()

    def cleaned(self) -> bool:
        """Whether every node has finished its first boot and deleted what its seed held."""
        self._read_consoles()
        unfinished = [name for name, console in self.consoles.items() if "clean" not in console.finished]
        if not self.powered():
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

    def until(
        self,
        holds: Callable[[], bool],
        what: str,
        *,
        every: float | None = None,
        missing: Callable[[], list[str]] = list,
        hint: str = "",
    ) -> None:
        """Wait for one thing.

        Args:
            holds: asked again and again.
            what: what is waited for, as a clause.
            every: seconds between two questions; a second when left out.
            missing: what is still missing, for the message when time runs out.
            hint: what to try then.

        Raises:
            ClusterError: a node says that it failed.
            MachineError: a machine cannot be started, or went away.
            NotReadyInTime: the deadline passed.
        """
        every = POLL_SECONDS if every is None else every
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

    def require(self, requirement: Requirement, readiness: Readiness | None = None) -> None:
        """Wait for a requirement; `readiness` is looked at for nodes that have become Ready meanwhile."""
        self.journal.add("", requirement.name, "begin")
        missing: list[str] = ["not asked yet"]

        def holds() -> bool:
            nonlocal missing
            try:
                missing = requirement.probe()
                if readiness is not None:
                    self._note_ready(readiness)
            except UnreachableError as error:
                missing = [error.message]
            return not missing

        self.until(holds, requirement.name, every=API_POLL_SECONDS, missing=lambda: missing, hint=requirement.hint)
        self.journal.add("", requirement.name, "done")

    def apply(self, what: str, api: Api, manifests: Sequence[Mapping[str, Any]]) -> None:
        """Apply objects in order, each until the API server takes it."""
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

        self.until(apply_next, f"{what} applied", every=API_POLL_SECONDS, missing=lambda: missing)
        self.journal.add("", what, "done")

    def _note_ready(self, readiness: Readiness) -> None:
        """Note in the journal each node that has become Ready since the last look."""
        for name, why in readiness.conditions.items():
            if not why and name not in self._ready and name in self.nodes:
                self._ready.add(name)
                self.journal.add(name, "ready", "done")

    def _look_for_trouble(self) -> None:
        self._read_consoles()
        for console in self.consoles.values():
            if console.failed:
                raise explain_failure(self.plan, console)
        if self._power is not None and self._power.error is not None:
            raise self._power.error
        if time.monotonic() - self._states_at > STATE_POLL_SECONDS:
            self._states_at = time.monotonic()
            self._look_at_machines()

    def _read_consoles(self) -> None:
        for console in self.consoles.values():
            console.read(self.journal)

    def _look_at_machines(self) -> None:
        try:
            states = {name: state for name, state in self.machines.states().items() if name in self.nodes}
        except LabError:
            if self.powered():
                raise
            return  # `power_on` is at work there, and has its own words for what fails
        for name, state in states.items():
            if state == NodeState.CRASHED:
                self._start_again(name)
        if self.powered():
            self._refuse_lost(states)

    def _start_again(self, name: str) -> None:
        """Start a machine whose hypervisor crashed, where its node can go on from there."""
        console = self.consoles.get(name)
        amidst = console is not None and console.amidst
        self._crashes[name] = self._crashes.get(name, 0) + 1
        if self._crashes[name] <= STARTS_AGAIN and not amidst:
            self.journal.add(name, "boot", "retry", "its virtual machine crashed")
            self.machines.start([name])
            return
        anew = f"klab destroy -y {self.plan.name}, and the same command again makes it anew"
        if self.folder.record().phase == "ready":
            anew = f"klab doctor {self.plan.name} names what makes the node anew"
        raise MachineError(
            f"the virtual machine of {name} crashed" + (" amidst its first boot" if amidst else ""),
            details=console.tail() if console else (),
            hint=f"{anew}; klab logs {name} shows its console",
        )

    def _refuse_lost(self, states: Mapping[str, NodeState]) -> None:
        for name, state in states.items():
            if state == NodeState.RUNNING:
                self._gone_since.pop(name, None)
                continue
            since = self._gone_since.setdefault(name, time.monotonic())
            if time.monotonic() - since > GONE_GRACE_SECONDS:
                raise MachineError(
                    f"the machine {name} is {state.value} although it was started",
                    details=self.consoles[name].tail() if name in self.consoles else (),
                    hint=f"klab start {name} starts it again; klab logs {name} shows its console",
                )


def _write(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()


class PowerOn:
    """The machines' `up` in a thread: nodes bootstrap while Vagrant still waits for the slowest."""

    def __init__(self, machines: Machines, nodes: Sequence[str], deadline: Deadline, log: Path) -> None:
        self.error: BaseException | None = None
        self._machines = machines
        self._nodes = nodes
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
                self._machines.up(self._deadline, lambda line: _write(out, line), self._nodes)
        except LabError as error:
            self.error = error
        except Exception as error:
            self.error = refusal(error, hint="make room or give yourself the right there; the same again goes on")
            self.error = self.error or ClusterError(
                f"powering on failed unexpectedly: {error!r}", hint="run again with --debug"
            )
