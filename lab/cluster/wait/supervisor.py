"""The machines of a lab while a command waits for it: one that crashed is restarted, one that is lost ends the wait."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from lab.cluster.events import Journal
from lab.cluster.wait.console import Consoles
from lab.errors import LabError, MachineError, Remedy
from lab.machines.protocol import Machines, NodeState
from lab.machines.restarts import RESTARTS
from lab.plan.model import Plan
from lab.store import LabFolder

STATE_POLL_SECONDS = 10.0
GONE_GRACE_SECONDS = 30.0


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
