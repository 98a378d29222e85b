"""Stop, start and reboot the machines of a lab, and wait until the cluster is itself again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from lab.cluster.api import Api
from lab.cluster.create import OpenMachines, deadline, finished
from lab.cluster.events import Journal, Listener
from lab.cluster.expiry import refuse_expired
from lab.cluster.ready import Readiness
from lab.cluster.watch import Watch
from lab.errors import LabError, MachineError
from lab.machines.protocol import Machines, NodeState
from lab.plan import Plan
from lab.rules import quorum
from lab.store import Home, LabFolder, Record
from lab.waiting import Deadline, at_once

# Seconds for the guests to shut down; one that takes longer hangs, on any host.
STOP_ACCELERATED = 2 * 60.0
STOP_EMULATED = 10 * 60.0
SSH_TRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Power:
    """What a stop, start or reboot ended with.

    `nodes` are those it was about, `running` all that run now. `lost_quorum` says that too few
    control planes run for etcd, and so for the cluster, to work. `seconds` it took.
    """

    nodes: tuple[str, ...]
    running: tuple[str, ...]
    lost_quorum: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Switch:
    """A lab whose machines are to be switched. `nodes` names them, empty for all; `timeout` is seconds."""

    home: Home
    folder: LabFolder
    plan: Plan
    open_machines: OpenMachines
    nodes: tuple[str, ...] = ()
    timeout: float | None = None
    listener: Listener | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.nodes or tuple(n.name for n in self.plan.nodes)


def stop(switch: Switch, *, force: bool = False) -> Power:
    """Shut machines down; with `force` cut their power.

    Raises:
        Conflict: another klab works on the lab, or it is half made or half destroyed.
        MachineError: a guest does not shut down in time.
    """
    began = time.monotonic()
    with switch.folder.lock():
        record, machines, journal = _open(switch)
        _shut_down(switch, record, machines, journal, force=force)
        return _power(switch, machines, began)


def start(switch: Switch) -> Power:
    """Start machines and wait until every node that runs is Ready.

    Returns at once after the machines answer ssh where too few control planes run for a quorum.

    Raises:
        Conflict: as `stop`.
        MachineError, ClusterError, NotReadyInTime: with node, log and hint; at once where certificates have expired.
    """
    began = time.monotonic()
    with switch.folder.lock():
        record, machines, journal = _open(switch)
        _bring_up(switch, record, machines, journal)
        return _power(switch, machines, began)


def reboot(switch: Switch, *, force: bool = False) -> Power:
    """Stop machines, all at once, and start them again; errors as `stop` and `start`."""
    began = time.monotonic()
    with switch.folder.lock():
        record, machines, journal = _open(switch)
        _shut_down(switch, record, machines, journal, force=force)
        _bring_up(switch, record, machines, journal)
        return _power(switch, machines, began)


def _open(switch: Switch) -> tuple[Record, Machines, Journal]:
    record = finished(switch.folder, switch.plan)
    machines = switch.open_machines(switch.home, switch.folder, switch.plan, record, None)
    return record, machines, Journal(switch.folder.events, switch.listener)


def _shut_down(switch: Switch, record: Record, machines: Machines, journal: Journal, *, force: bool) -> None:
    on = [n for n, s in machines.states().items() if n in switch.wanted and s.on]
    for name in on:
        journal.add(name, "shutdown", "begin")
    if force:
        machines.power_off(on)
    else:
        limit = switch.timeout or (STOP_ACCELERATED if record.accelerated else STOP_EMULATED)
        late = machines.stop(on, Deadline.after(limit))
        if late:
            for name in late:
                journal.add(name, "shutdown", "failed")
            raise MachineError(
                f"{', '.join(late)} did not shut down within {limit:.0f} seconds",
                hint=f"klab logs {late[0]} shows its console; klab stop --force {late[0]} cuts its power",
            )
    for name in on:
        journal.add(name, "shutdown", "done")


def _bring_up(switch: Switch, record: Record, machines: Machines, journal: Journal) -> None:
    limit = deadline(record, switch.timeout)
    off = [n for n, s in machines.states().items() if n in switch.wanted and s != NodeState.RUNNING]
    for name in off:
        journal.add(name, "start", "begin")
    machines.start(off)
    running = _running(machines)
    watch = Watch(switch.folder, switch.plan, machines, journal, limit, running)
    _await_ssh(watch, machines, journal, off)
    if switch.plan.bootstrap == "full" and not _quorum_lost(switch.plan, running):
        refuse_expired(switch.folder, switch.plan, record, machines, running, limit)
        await_ready(watch, running)


def _await_ssh(watch: Watch, machines: Machines, journal: Journal, nodes: Sequence[str]) -> None:
    silent = list(nodes)

    def ask(name: str) -> bool:
        try:
            machines.ssh(name, ["true"], timeout=watch.deadline.at_most(SSH_TRY_SECONDS))
        except LabError:
            return False
        journal.add(name, "start", "done")
        silent.remove(name)
        return True

    def answer() -> bool:
        return all(at_once(ask, list(silent)).values())

    watch.until(
        answer,
        "every machine answers ssh",
        missing=lambda: [f"{name} does not answer" for name in silent],
        hint=f"klab logs {nodes[0]} shows its console" if nodes else "",
    )


def await_ready(watch: Watch, nodes: Sequence[str]) -> None:
    """Wait until the nodes of these names are Ready, for sure and not from memory.

    After a power failure the API server believes what it was told before. So the leases come
    first: they are judged by change, and only a kubelet that lives renews one.
    """
    api = Api(watch.folder, watch.plan)
    readiness = Readiness(watch.plan, api, watch.machines, nodes=nodes)
    for requirement in readiness.requirements(remembered=True):
        watch.require(requirement, readiness)


def _running(machines: Machines) -> tuple[str, ...]:
    return tuple(name for name, state in machines.states().items() if state == NodeState.RUNNING)


def _quorum_lost(plan: Plan, running: Sequence[str]) -> bool:
    planes = [n.name for n in plan.control_planes]
    return sum(name in running for name in planes) < quorum(len(planes))


def _power(switch: Switch, machines: Machines, began: float) -> Power:
    running = _running(machines)
    lost = switch.plan.bootstrap == "full" and _quorum_lost(switch.plan, running)
    return Power(switch.wanted, running, lost, time.monotonic() - began)
