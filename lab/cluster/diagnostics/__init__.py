"""What can be wrong with a lab: a list of checks, each with evidence and the command that repairs it.

The checks are pure: they judge what `lab.cluster.observe.collect` saw from outside and what
`lab.cluster.observe.node_probe` asked the nodes. Causes stand in the list before what follows from
them, so that a finding can name the repair of its cause.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.cluster.clients.reach import Reach, direct
from lab.cluster.diagnostics import control_plane, nodes, workload
from lab.cluster.diagnostics.context import Check, CheckContext, Finding
from lab.cluster.observe.collect import collect_facts
from lab.cluster.observe.node_probe import ask_nodes
from lab.cluster.observe.node_report import NodeReport
from lab.components.runtime import runtimes
from lab.machines.protocol import Machines
from lab.plan.model import Plan
from lab.store import LabFolder, Record

__all__ = ["CHECKS", "Case", "Check", "Finding", "Result", "diagnose", "examine"]

# A person who asks what is wrong waits longer than one who asks how it is; and a slow guest is not a dead one.
LOOK_SECONDS = 15.0

CHECKS: tuple[Check, ...] = (
    nodes.MACHINES,
    nodes.SSH,
    nodes.DISK,
    nodes.SWAP,
    nodes.service("chrony"),
    nodes.CLOCKS,
    *(nodes.service(unit) for each in runtimes().values() for unit in each.units),
    nodes.service("docker-registry"),
    nodes.CERTIFICATES,
    nodes.service("kubelet"),
    control_plane.STATIC,
    control_plane.ETCD,
    nodes.service("haproxy"),
    nodes.service("keepalived"),
    control_plane.VIRTUAL_IP,
    control_plane.API,
    workload.NETWORK,
    workload.IMAGES,
    workload.TOKEN,
    workload.NODES,
    workload.VERSIONS,
    workload.PODS,
)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check: its findings; `unseen` as of the check, `says` its summary."""

    check: str
    findings: tuple[Finding, ...]
    unseen: str
    says: str

    @property
    def well(self) -> bool:
        return not self.findings and not self.unseen


def examine(
    folder: LabFolder, plan: Plan, record: Record, machines: Machines, *, reach: Reach = direct
) -> tuple[Result, ...]:
    """Look at a lab from outside, ask each node that runs, and make every check."""
    facts = collect_facts(folder, plan, record, machines, seconds=LOOK_SECONDS, reach=reach)
    running = [node.name for node in facts.nodes if node.runs]
    answers = ask_nodes(machines, record, running, plan.kubernetes)
    reports = {name: answer for name, answer in answers.items() if isinstance(answer, NodeReport)}
    silent = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    scenario = folder.scenario_file
    return diagnose(CheckContext(plan, facts, reports, silent, scenario, from_checkpoint=bool(record.checkpoint)))


def diagnose(case: CheckContext) -> tuple[Result, ...]:
    """Make every check that applies to the lab."""
    before: list[Finding] = []
    results = []
    for check in CHECKS:
        if not check.applies(case.plan):
            continue
        found = tuple(check.find(case, tuple(before)))
        unseen = check.unseen(case)
        says = "" if found or unseen else check.summary(case)
        results.append(Result(check.name, found, unseen, says))
        before += found
    return tuple(results)
