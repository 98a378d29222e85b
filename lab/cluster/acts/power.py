"""Stop, start and reboot the machines of a lab, and wait until its cluster is Ready again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab.cluster.acts.steps import Context, Step, ready_steps, run_steps
from lab.cluster.clients.api import Api
from lab.cluster.events import Journal
from lab.cluster.lab import Lab
from lab.cluster.observe.expiry import refuse_expired
from lab.cluster.wait.ready import Readiness
from lab.cluster.wait.watch import Watch
from lab.errors import LabError, MachineError, Remedy
from lab.machines.protocol import Machines, NodeState
from lab.plan.model import Plan
from lab.scenario.rules import quorum
from lab.store import Record
from lab.waiting import Deadline, map_parallel

# Seconds for the guests to shut down; one that takes longer hangs, on any host.
STOP_ACCELERATED = 2 * 60.0
STOP_EMULATED = 10 * 60.0
SSH_TRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class PowerResult:
    """What a stop, start or reboot ended with.

    `nodes` are those it was about, `running` all that run now. `lost_quorum`: too few
    control planes run for etcd, and so for the cluster, to work. `seconds` it took.
    """

    nodes: tuple[str, ...]
    running: tuple[str, ...]
    lost_quorum: bool
    seconds: float


def stop(lab: Lab, nodes: Sequence[str] = (), *, force: bool = False) -> PowerResult:
    """Shut machines down; with `force` cut their power.

    Args:
        lab: the lab.
        nodes: the nodes whose machines they are; all when left out.
        force: do not wait for the guests.

    Raises:
        Conflict: another klab works on the lab, or it is half made or half destroyed.
        MachineError: a guest does not shut down in time.
    """
    with _switched(lab, nodes) as switch:
        switch.shut_down(force=force)
        return switch.power()


def start(lab: Lab, nodes: Sequence[str] = ()) -> PowerResult:
    """Start machines and wait until every node that runs is Ready; arguments as for `stop`.

    Returns at once after the machines answer ssh where too few control planes run for a quorum.

    Raises:
        Conflict: as `stop`.
        MachineError, ClusterError, NotReadyInTime: with node, log and hint; at once where certificates have expired.
    """
    with _switched(lab, nodes) as switch:
        switch.bring_up()
        return switch.power()


def reboot(lab: Lab, nodes: Sequence[str] = (), *, force: bool = False) -> PowerResult:
    """Stop machines, all at once, and start them again; arguments and errors as for `stop` and `start`."""
    with _switched(lab, nodes) as switch:
        switch.shut_down(force=force)
        switch.bring_up()
        return switch.power()


@contextmanager
def _switched(lab: Lab, nodes: Sequence[str]) -> Iterator[_Switch]:
    began = time.monotonic()
    with lab.folder.lock():
        record = lab.finished()
        wanted = tuple(nodes) or tuple(n.name for n in lab.plan.nodes)
        yield _Switch(lab, wanted, record, lab.machines(record), lab.journal(), began)


@dataclass(frozen=True, slots=True)
class _Switch:
    """One lab whose machines are being switched, under its lock; `nodes` are theirs."""

    lab: Lab
    nodes: tuple[str, ...]
    record: Record
    machines: Machines
    journal: Journal
    began: float

    def shut_down(self, *, force: bool) -> None:
        on = [n for n, s in self.machines.states().items() if n in self.nodes and s.on]
        for name in on:
            self.journal.add(name, "shutdown", "begin")
        if force:
            self.machines.power_off(on)
        else:
            limit = self.lab.timeout or (STOP_ACCELERATED if self.record.accelerated else STOP_EMULATED)
            late = self.machines.stop(on, Deadline.after(limit))
            if late:
                for name in late:
                    self.journal.add(name, "shutdown", "failed")
                raise MachineError(
                    f"{', '.join(late)} did not shut down within {limit:.0f} seconds",
                    hint=(
                        Remedy("logs", node=late[0]),
                        " shows its console; ",
                        Remedy("stop", node=late[0], options=("--force",)),
                        " cuts its power",
                    ),
                )
        for name in on:
            self.journal.add(name, "shutdown", "done")

    def bring_up(self) -> None:
        limit = self.lab.deadline(self.record)
        watch = Watch(self.lab.folder, self.lab.plan, self.machines, self.journal, limit, self.nodes)
        run_steps(start_steps(self.lab.plan, self.nodes), Context.of(self.lab, self.record, self.machines, watch))

    def power(self) -> PowerResult:
        running = _running(self.machines)
        lost = self.lab.plan.bootstrap == "full" and _quorum_lost(self.lab.plan, running)
        return PowerResult(self.nodes, running, lost, time.monotonic() - self.began)


def start_steps(plan: Plan, nodes: Sequence[str]) -> list[Step]:
    """The steps of `start` for the machines of these nodes; a cluster without a quorum is not waited for."""
    steps = [Step("the machines are started", lambda context: _start(context, nodes))]
    if plan.bootstrap == "full":
        steps.append(Step("no certificate has expired", _refuse_expired, _has_quorum))
        steps += ready_steps(plan, remembered=True, applies=_has_quorum)
    return steps


def _start(context: Context, nodes: Sequence[str]) -> None:
    """Start what is off, and wait until it answers ssh; from then on every node that runs is waited for."""
    watch, machines = context.watch, context.machines
    off = [n for n, s in machines.states().items() if n in nodes and s != NodeState.RUNNING]
    for name in off:
        watch.journal.add(name, "start", "begin")
    machines.start(off)
    running = _running(machines)
    context.wait_for(Watch(watch.folder, watch.plan, machines, watch.journal, watch.deadline, running))
    await_ssh(context.watch, off, lambda name: watch.journal.add(name, "start", "done"))


def await_ssh(watch: Watch, nodes: Sequence[str], on_answer: Callable[[str], object] = str) -> None:
    """Wait until each of these nodes answers ssh.

    Args:
        watch: what ends the wait: a machine that goes away, or the deadline.
        nodes: the nodes' names.
        on_answer: called with each that answers, from another thread.

    Raises:
        MachineError, NotReadyInTime: as `Watch.until`.
    """
    silent = list(nodes)

    def ask(name: str) -> bool:
        try:
            watch.machines.ssh(name, ["true"], timeout=watch.deadline.at_most(SSH_TRY_SECONDS))
        except LabError:
            return False
        on_answer(name)
        silent.remove(name)
        return True

    def answer() -> bool:
        return all(map_parallel(ask, list(silent)).values())

    watch.until(
        answer,
        "every machine answers ssh",
        missing=lambda: [f"{name} does not answer" for name in silent],
        hint=(Remedy("logs", node=nodes[0]), " shows its console") if nodes else "",
    )


def _has_quorum(context: Context) -> bool:
    return not _quorum_lost(context.plan, context.nodes)


def _refuse_expired(context: Context) -> None:
    lab, watch = context.lab, context.watch
    refuse_expired(lab.folder, lab.plan, context.record, context.machines, context.nodes, watch.deadline)


def await_ready(watch: Watch, api: Api, nodes: Sequence[str]) -> None:
    """Wait until the nodes of these names are Ready, by what they say now and not by what is remembered.

    After a power failure the API server believes what it was told before. So the leases come
    first: they are judged by change, and only a kubelet that runs renews one.
    """
    readiness = Readiness(watch.plan, api, watch.machines, nodes=nodes)
    for requirement in readiness.requirements(remembered=True):
        watch.require(requirement, readiness)


def _running(machines: Machines) -> tuple[str, ...]:
    return tuple(name for name, state in machines.states().items() if state == NodeState.RUNNING)


def _quorum_lost(plan: Plan, running: Sequence[str]) -> bool:
    planes = [n.name for n in plan.control_planes]
    return sum(name in running for name in planes) < quorum(len(planes))
