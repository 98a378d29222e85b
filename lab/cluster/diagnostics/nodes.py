"""What can be wrong with machines and with the systems on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab.cluster.diagnostics.context import (
    Before,
    Check,
    CheckContext,
    Finding,
    balanced,
    cause,
    kubernetes,
    runtime,
    unreported,
    with_runtime_unit,
)
from lab.cluster.observe.facts import certificate_line, time_line
from lab.components.runtime import runtimes
from lab.machines.protocol import NodeState
from lab.plan.model import Node, Plan
from lab.render.timekeeping import RESTART as RESTART_CHRONY
from lab.render.timekeeping import RESTART_ANY

SOON_DAYS = 30.0
APART_SECONDS = 1.0
NEARLY_FULL_PERCENT = 80
# Where the kubelet deletes images and evicts pods: with less than 15 % available to images (kubernetes.io,
# "Node-pressure Eviction", imagefs.available), which on one disk is before 10 % of everything. df does not count
# what is reserved for root, so its 84 are that 85.
EVICTION_PERCENT = 84
FULL_INODES_PERCENT = 90
WORKING = ("active", "reloading")


def _machines(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for line in case.facts.unseen:
        if line.startswith("machines: "):
            yield Finding("machines", "", "the machines cannot be inspected", line, "klab doctor")
    if len(case.plan.nodes) > 1 and case.facts.stopped and not any(node.halted for node in case.facts.nodes):
        seen = ", ".join(f"{node.name}: {node.machine}" for node in case.facts.nodes)
        yield Finding("machines", "", "the whole lab is off", seen, f"klab start {case.lab}", causes=True)
        return
    for node in case.plan.nodes:
        state, halted = case.seen(node.name).machine, case.seen(node.name).halted
        if state in {NodeState.RUNNING, "unknown"}:
            continue
        if halted:
            what = "its machine is paused: what it writes finds no place on this machine's disk"
            # Without room it would be paused again at once.
            repair = f"klab snapshot prune {case.lab} --keep 1; klab start {case.lab} {node.name}"
            yield Finding("machines", node.name, what, halted, repair, causes=True)
            continue
        repair = case.recreate_node(node.name) if state == NodeState.ABSENT else f"klab start {case.lab} {node.name}"
        yield Finding(
            "machines", node.name, f"its machine is {state}", f"the provider reports {state}", repair, causes=True
        )


def _ssh(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for name, why in case.silent.items():
        repair = f"klab reboot --force {case.lab} {name}"
        yield Finding("ssh", name, "it runs but cannot be asked over ssh", why, repair, causes=True)


@dataclass(frozen=True, slots=True)
class Service:
    """A systemd unit that has to run: on which nodes, in which labs."""

    unit: str
    word: str
    applies: Callable[[Plan], bool]
    where: Callable[[CheckContext, Node], bool] = lambda _case, _node: True
    causes: bool = False
    restart: str = ""

    @property
    def repair(self) -> str:
        """The command, on the node, that starts it again."""
        return self.restart or f"sudo systemctl restart {self.unit}"


def _balancing(case: CheckContext, node: Node) -> bool:
    return node in case.balancing


SERVICES = {
    service.unit: service
    for service in (
        Service("chrony", "the time service chrony", lambda plan: not plan.cloud_image, restart=RESTART_CHRONY),
        *(
            Service(unit, unit, with_runtime_unit(name, unit), causes=True)
            for name, each in runtimes().items()
            for unit in each.units
        ),
        Service("docker-registry", "the node's own image registry", runtime),
        Service("kubelet", "the kubelet", kubernetes, causes=True),
        Service("haproxy", "the load balancer HAProxy", balanced, _balancing),
        Service("keepalived", "keepalived, the virtual IP's keeper,", balanced, _balancing),
    )
}


def service(name: str) -> Check:
    """The check that a service runs where it should."""
    this = SERVICES[name]

    def look(case: CheckContext, before: Before) -> Iterator[Finding]:
        for node, report in case.reported_members if name == "kubelet" else case.reported:
            unit = report.unit(name)
            if not this.where(case, node):
                continue
            seen = f"{name}.service: {unit.load}, {unit.active} ({unit.sub}), result {unit.result or 'unknown'}"
            if unit.active not in WORKING:
                command = this.repair
                if unit.load == "masked":
                    command = f"sudo systemctl unmask {name}; {command}"
                repair = case.ssh(node.name, command)
                if name == "kubelet":
                    seen += f"; its last log line: {report.kubelet}" if report.kubelet else ""
                    repair = cause(before, node.name, repair)
                yield Finding(name, node.name, f"{this.word} does not run", seen, repair, this.causes)
            elif unit.enabled == "disabled":
                what = f"{this.word} runs, but will not after a reboot"
                yield Finding(name, node.name, what, seen, case.ssh(node.name, f"sudo systemctl enable {name}"))

    return Check(name, look, this.applies, unreported)


def _swap(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for node, report in case.reported:
        if report.swap:
            repair = case.ssh(node.name, "sudo swapoff -a")
            what = "swap is on, with which the kubelet does not start"
            yield Finding("swap", node.name, what, f"in use: {', '.join(report.swap)}", repair, causes=True)


def _disk(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for node, report in case.reported:
        used, inodes = report.disk or 0, report.inodes or 0
        # Only a person can say what may go: the command shows what takes most.
        repair = case.ssh(node.name, "sudo du -axh / | sort -h | tail -n 20")
        if used >= EVICTION_PERCENT or inodes > FULL_INODES_PERCENT:
            what = "its disk is full: the kubelet deletes images and evicts pods"
        elif used >= NEARLY_FULL_PERCENT:
            what = f"its disk is nearly full: from {EVICTION_PERCENT} % on the kubelet deletes images and evicts pods"
        elif "DiskPressure" in case.seen(node.name).pressures:
            what = "the kubelet still reports DiskPressure, and takes no pods: it waits five minutes once there is room"
            repair = case.look_again
        else:
            continue
        free = (report.free or 0) // 1024
        seen = f"{used} % of the disk and {inodes} % of its inodes are used, {free} MiB are free"
        yield Finding("disk", node.name, what, seen, repair, causes=True)


def _disk_summary(case: CheckContext) -> str:
    used = [report.disk for _, report in case.reported if report.disk is not None]
    return f"at most {max(used)} % used" if used else ""


def _reference(case: CheckContext) -> tuple[str, float, float] | None:
    """The clock that the others are set against: the one in the middle, of two the first."""
    clocks = [(r.clock.offset, n.name, r.clock.uncertainty) for n, r in case.reported if r.clock is not None]
    if len(clocks) < 2:
        return None
    offset, name, doubt = clocks[0] if len(clocks) == 2 else sorted(clocks)[len(clocks) // 2]
    return name, offset, doubt


def _gaps(case: CheckContext) -> Iterator[tuple[str, str, float, float]]:
    """Node, the node it is compared with, by how many seconds it is ahead, and how wrong that may be."""
    reference = _reference(case)
    for node, report in case.reported:
        if reference is not None and report.clock is not None and node.name != reference[0]:
            name, offset, doubt = reference
            yield node.name, name, report.clock.offset - offset, report.clock.uncertainty + doubt


def _clocks(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for node, other, gap, doubt in _gaps(case):
        if abs(gap) - doubt <= APART_SECONDS:
            continue
        what = f"its clock is {abs(gap):.1f} s {'ahead of' if gap > 0 else 'behind'} {other}'s"
        seen = f"{gap:+.1f} s, give or take {doubt:.1f} s for the way there"
        # chrony steps whatever is more than half a second off as soon as it has heard the others.
        restart = RESTART_ANY if case.plan.cloud_image else RESTART_CHRONY
        yield Finding("clocks", node, what, seen, case.ssh(node, restart))


def _clocks_summary(case: CheckContext) -> str:
    gaps = list(_gaps(case))
    apart, doubt = max((abs(g[2]) for g in gaps), default=0.0), max((g[3] for g in gaps), default=0.0)
    compared = f"at most {apart:.1f} s apart, give or take {doubt:.1f} s" if gaps else "nothing to compare"
    return f"{compared}; source: {'its own' if case.plan.cloud_image else time_line(case.facts)}"


def _certificates(case: CheckContext, _before: Before) -> Iterator[Finding]:
    ending: dict[str, list[tuple[float, str]]] = {}
    for shown in case.facts.certificates:
        if shown.days is not None and shown.days < SOON_DAYS:
            ending.setdefault(shown.node, []).append((shown.days, shown.what))
    for node, report in case.reported:
        for file, days in report.certificates:
            if days < SOON_DAYS:
                ending.setdefault(node.name, []).append((days, file))
    for name, found in ending.items():
        days = min(found)[0]
        what = "a certificate there" if name else "klab's own certificate"
        what += " has expired" if days <= 0 else f" expires in {days:.0f} days"
        seen = "; ".join(f"{whose}: {'expired' if d <= 0 else f'{d:.0f} days left'}" for d, whose in sorted(found))
        yield Finding("certificates", name, what, seen, f"klab certs renew {case.lab}", causes=days <= 0)


def _certificates_unseen(case: CheckContext) -> str:
    shown = [c for c in case.facts.certificates if c.node not in case.outside]
    silent = [f"{c.what} on {c.node}" if c.node else c.what for c in shown if c.days is None]
    return f"not shown: {', '.join(silent)}" if silent else ""


MACHINES = Check("machines", _machines, summary=lambda case: f"{len(case.running)} run")
SSH = Check("ssh", _ssh, unseen=unreported, summary=lambda case: f"{len(case.reports)} answer")
DISK = Check("disk", _disk, unseen=unreported, summary=_disk_summary)
SWAP = Check("swap", _swap, runtime, unreported)
CLOCKS = Check("clocks", _clocks, unseen=unreported, summary=_clocks_summary)
CERTIFICATES = Check(
    "certificates", _certificates, kubernetes, _certificates_unseen, lambda case: certificate_line(case.facts)
)
