"""Wait for a lab: for one thing at a time, while looking for everything that makes waiting pointless.

Create, start, scale and the rest share it. A node that reports a failure on its console (`console`), a
machine that cannot be started (`power_on`) or is lost (`supervisor`), the deadline: each ends the wait at once,
with an error that names it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.cluster.clients.api import UnreachableError
from lab.cluster.events import Journal
from lab.cluster.observe.facts import no_member
from lab.cluster.wait.console import Consoles
from lab.cluster.wait.diagnose import explain_failure, explain_timeout
from lab.cluster.wait.power_on import PowerOn
from lab.cluster.wait.ready import Readiness, Requirement
from lab.cluster.wait.supervisor import Supervisor
from lab.errors import Advice, LabError
from lab.machines.protocol import Machines
from lab.plan.model import Plan
from lab.store import LabFolder
from lab.waiting import Deadline

POLL_SECONDS = 1.0
# Each question costs the API server work that a slow guest needs for starting.
API_POLL_SECONDS = 2.0
# What a node is asked whose console cannot be read: whether node.sh has failed, and what its log then shows.
FAILED = ("sh", "-c", "systemctl -q is-failed klab-node && { tail -n 25 /var/log/klab-kubeadm.log 2>/dev/null; true; }")
FAILED_POLL_SECONDS = 30.0
FAILED_ANSWER_SECONDS = 10.0


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
        self.consoles = Consoles(journal)
        self.supervisor = Supervisor(folder, plan, machines, journal, self.nodes, self.consoles)
        self._power: PowerOn | None = None
        self._ready: set[str] = set()
        self._told: set[str] = set()
        self._passed_over: set[str] = set()
        self._missing = ("", "")
        self._ask_again = Deadline.after(0)

    # --- machines -----------------------------------------------------------------------------

    def power_on(self) -> None:
        """Make and start the machines in a thread of their own, and follow the nodes' consoles meanwhile."""
        self._power = PowerOn(self.machines, self.nodes, self.deadline, self.folder.logs / "up.log")
        self._power.start()
        self.consoles.follow(self._console_files())

    def follow(self) -> None:
        """Follow the nodes' consoles from here on: the machines run already."""
        self.consoles.follow(self._console_files(), anew=False)

    def _console_files(self) -> dict[str, Path]:
        return {n: f for n, f in self.machines.consoles().items() if n in self.nodes}

    def powered(self) -> bool:
        """Whether every machine that `power_on` was to start has answered."""
        return self._power is None or self._power.ended()

    def stop(self) -> None:
        """Stop what `power_on` has begun; the machines made so far stay for the next try."""
        if self._power is not None:
            self._power.join()

    def cleaned(self) -> bool:
        """Whether every node has finished its first boot and deleted what its seed held."""
        self.consoles.read()
        if self.consoles.failed is not None:
            return False  # the next look for trouble tells of it
        unfinished = self.consoles.unfinished
        if not self.powered():
            return not unfinished
        # A console that cannot be read (another user's libvirtd) or was cut by a restart: ask the node itself.
        return all(self._asked_clean(name) for name in unfinished)

    def _asked_clean(self, name: str) -> bool:
        with contextlib.suppress(LabError):
            command = ["test", "-e", "/etc/cloud/cloud-init.disabled", "-a", "!", "-e", "/etc/klab"]
            if self.machines.ssh(name, command, timeout=60, check=False).code == 0:
                self.consoles.finish(name)
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
        hint: Advice = "",
        phase: str = "",
    ) -> None:
        """Wait for one thing.

        Args:
            holds: asked again and again.
            what: what is waited for, as a clause.
            every: seconds between two questions; a second when left out.
            missing: what is still missing, for the message when time runs out.
            hint: what to try then.
            phase: the phase of the journal in which this is waited for; its listener is told what is missing.

        Raises:
            ClusterError: a node reports that it failed.
            MachineError: a machine cannot be started, or went away.
            NotReadyInTime: the deadline passed.
        """
        every = POLL_SECONDS if every is None else every
        while not holds():
            self._tell_missing(phase, missing())
            pause = time.monotonic() + every
            while True:
                self._look_for_trouble()
                if self.deadline.passed:
                    self.consoles.read()
                    raise explain_timeout(self.plan, what, missing(), self.folder, self.consoles, hint)
                if time.monotonic() >= pause:
                    break
                time.sleep(min(POLL_SECONDS, every))

    def require(self, requirement: Requirement, readiness: Readiness | None = None) -> None:
        """Wait for a requirement, with a note in the journal; arguments and errors as in `hold` and `until`."""
        with self.journal.span("", requirement.name):
            self.hold(requirement, readiness, phase=requirement.name)

    def hold(self, requirement: Requirement, readiness: Readiness | None = None, phase: str = "") -> None:
        """Wait until a requirement holds; nodes that `readiness` sees become Ready are noted.

        `phase` and errors as in `until`.
        """
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

        self.until(
            holds,
            requirement.name,
            every=API_POLL_SECONDS,
            missing=lambda: missing,
            hint=requirement.hint,
            phase=phase,
        )

    def _tell_missing(self, phase: str, missing: Sequence[str]) -> None:
        """Tell what a phase waits for, whenever that has changed."""
        if phase and missing and (phase, missing[0]) != self._missing:
            self._missing = (phase, missing[0])
            more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            self.journal.waits(phase, f"{missing[0]}{more}")

    def _note_ready(self, readiness: Readiness) -> None:
        """Note in the journal each node that has become Ready since the last look, and each that is passed over."""
        for name in readiness.outside:
            if name not in self._passed_over:
                self._passed_over.add(name)
                self.journal.add("", "members", "note", no_member(self.plan.name, name))
        for name, why in readiness.conditions.items():
            if not why and name not in self._ready and name in self.nodes:
                self._ready.add(name)
                self.journal.add(name, "ready", "done")

    def _look_for_trouble(self) -> None:
        self.consoles.read()
        self._ask_instead_of_reading()
        if (failed := self.consoles.failed) is not None:
            raise explain_failure(self.plan, failed)
        if self._power is not None and self._power.error is not None:
            raise self._power.error
        self.supervisor.check(powered=self.powered())

    def _ask_instead_of_reading(self) -> None:
        """Ask nodes whose consoles cannot be read whether their first boot has failed, once they answer at all."""
        for console in self.consoles.unreadable:
            if console.node not in self._told:
                self._told.add(console.node)
                self.journal.add("", "console", "note", f"{console.node}'s cannot be read: {console.unreadable}")
        if not self.powered() or not self._ask_again.passed:
            return
        self._ask_again = Deadline.after(FAILED_POLL_SECONDS)
        for console in self.consoles.unreadable:
            with contextlib.suppress(LabError):
                done = self.machines.run(console.node, FAILED, timeout=FAILED_ANSWER_SECONDS)
                if done.code == 0:
                    console.fail("first boot", "klab-node.service failed", done.stdout.splitlines())
