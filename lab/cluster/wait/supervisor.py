"""The machines of a lab while a command waits for it.

One that crashed, or hangs before it has said a word, is restarted; one that is lost ends the wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.cluster.events import Journal
from lab.cluster.wait.console import Consoles
from lab.errors import LabError, MachineError, Remedy
from lab.machines.protocol import Machines, NodeState
from lab.machines.restarts import RESTARTS
from lab.plan.model import Plan
from lab.store import LabFolder

STATE_POLL_SECONDS = 10.0
GONE_GRACE_SECONDS = 30.0
# An emulated kernel on a busy host hangs in some of many boots before its first line: it has missed a timer's interrupt
# and waits for it for good. Booting takes a minute, on a host that is overloaded six; machines that boot side by side
# take equally long.
SILENT_SECONDS = 180.0
SILENT_TIMES = 2.5
# Where no other machine tells how long booting takes, with and without hardware virtualization.
SILENT_ALONE_SECONDS = (300.0, 1200.0)


@dataclass(slots=True)
class _Boot:
    """A machine's first boot: since when it runs, and after how many seconds it said something."""

    since: float
    spoke_after: float | None = None
    restarts: int = 0


class Supervisor:
    """Owns the policy for machines that fail during a wait; `lab.machines.restarts` says who else takes part.

    Args:
        folder: the lab's folder.
        plan: the lab's plan.
        machines: the lab's machines.
        journal: where a restart is noted.
        nodes: names of those whose machines have to run.
        consoles: the consoles of nodes that are being made, which tell whether a node can continue.
    """

    def __init__(
        self,
        folder: LabFolder,
        plan: Plan,
        machines: Machines,
        journal: Journal,
        nodes: Sequence[str],
        consoles: Consoles,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._machines = machines
        self._journal = journal
        self._nodes = nodes
        self._consoles = consoles
        self._gone_since: dict[str, float] = {}
        self._crashes: dict[str, int] = {}
        self._boots: dict[str, _Boot] = {}
        self._looked_at = 0.0

    def check(self, *, powered: bool) -> None:
        """Look at the machines, every STATE_POLL_SECONDS at most.

        Args:
            powered: every machine has been started; before that, one that does not run yet is not lost.

        Raises:
            MachineError: a machine crashed and cannot be restarted, or does not run any more.
            LabError: the provider does not answer, though every machine has been started.
        """
        if time.monotonic() - self._looked_at <= STATE_POLL_SECONDS:
            return
        self._looked_at = time.monotonic()
        try:
            states = {name: state for name, state in self._machines.states().items() if name in self._nodes}
        except LabError:
            if powered:
                raise
            return  # whatever starts the machines is at work there, and reports its own failures
        for name, state in states.items():
            if state == NodeState.CRASHED:
                self._restart(name)
            elif state == NodeState.RUNNING:
                self._follow_boot(name)
        self._restart_silent()
        if powered:
            self._refuse_lost(states)

    def _restart(self, name: str) -> None:
        """Restart a machine whose hypervisor crashed, where its node can continue from there."""
        booting = self._consoles.in_first_boot(name)
        self._crashes[name] = self._crashes.get(name, 0) + 1
        if self._crashes[name] <= RESTARTS and not booting:
            self._journal.add(name, "boot", "retry", "its virtual machine crashed")
            self._machines.start([name])
            return
        remake = (Remedy("destroy", lab=self._plan.name, options=("-y",)), ", then the same command again")
        if self._folder.record().phase == "ready":
            remake = (Remedy("doctor", lab=self._plan.name), " names the command that recreates the node")
        raise MachineError(
            f"the virtual machine of {name} crashed" + (" during its first boot" if booting else ""),
            details=self._consoles.tail(name),
            hint=(*remake, "; ", Remedy("logs", node=name), " shows its console"),
        )

    def _follow_boot(self, name: str) -> None:
        """Note how long a machine's first boot is silent, where its console can be read."""
        console = self._consoles.of(name)
        if console is None or console.unreadable or not (self._folder.seeds / f"{name}.iso").exists():
            self._boots.pop(name, None)
            return
        boot = self._boots.setdefault(name, _Boot(time.monotonic()))
        if console.alive and boot.spoke_after is None:
            boot.spoke_after = time.monotonic() - boot.since

    def _restart_silent(self) -> None:
        """Restart machines that are silent for much longer than the others were; nothing has read their seeds yet."""
        spoke = [boot.spoke_after for boot in self._boots.values() if boot.spoke_after is not None]
        alone = SILENT_ALONE_SECONDS[0 if self._folder.record().accelerated else 1]
        limit = max(SILENT_SECONDS, SILENT_TIMES * max(spoke)) if spoke else alone
        for name, boot in self._boots.items():
            silent = time.monotonic() - boot.since
            if boot.spoke_after is None and silent > limit and boot.restarts < RESTARTS:
                boot.restarts, boot.since = boot.restarts + 1, time.monotonic()
                self._journal.add(name, "boot", "retry", f"its console has been silent for {silent:.0f} s")
                self._machines.power_off([name])
                self._machines.start([name])

    def _refuse_lost(self, states: Mapping[str, NodeState]) -> None:
        for name, state in states.items():
            if state == NodeState.RUNNING:
                self._gone_since.pop(name, None)
                continue
            since = self._gone_since.setdefault(name, time.monotonic())
            if time.monotonic() - since > GONE_GRACE_SECONDS:
                raise MachineError(
                    f"the machine {name} is {state.value} although it was started",
                    details=self._consoles.tail(name),
                    hint=(
                        Remedy("start", node=name),
                        " starts it again; ",
                        Remedy("logs", node=name),
                        " shows its console",
                    ),
                )
