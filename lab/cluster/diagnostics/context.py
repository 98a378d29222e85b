"""The context of a check, and its findings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.cluster.observe.facts import ClusterFacts, NodeFacts
from lab.cluster.observe.node_report import NodeReport, Process
from lab.components.runtime import runtime as component
from lab.plan.model import Node, Plan, create_command, import_command


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong: what, on which node (empty for the whole lab), how it shows, what repairs it.

    `causes`: other findings on that node, or in the lab, may follow from this one.
    """

    check: str
    node: str
    what: str
    evidence: str
    repair: str
    causes: bool = False


Before = Sequence[Finding]


def cause(before: Before, node: str, otherwise: str) -> str:
    """What repairs the first finding that may explain trouble on a node; `otherwise` where there is none."""
    return next((f.repair for f in before if f.causes and f.node in {node, ""}), otherwise)


@dataclass(frozen=True, slots=True)
class CheckContext:
    """A lab as it was seen.

    `reports` holds what each node said of itself, `silent` why a node that runs said nothing;
    `scenario` is the lab's scenario file, `from_checkpoint`: it was imported from a bundle.
    """

    plan: Plan
    facts: ClusterFacts
    reports: Mapping[str, NodeReport]
    silent: Mapping[str, str]
    scenario: Path
    from_checkpoint: bool = False

    @property
    def lab(self) -> str:
        return self.plan.name

    def seen(self, name: str) -> NodeFacts:
        return next(n for n in self.facts.nodes if n.name == name)

    @property
    def running(self) -> tuple[Node, ...]:
        return tuple(n for n in self.plan.nodes if self.seen(n.name).runs)

    @property
    def outside(self) -> tuple[str, ...]:
        """The nodes that have left the cluster and live on, by their own word and the API's.

        Where the API does not answer, a control plane without its files may be why.
        """
        left = [n for n, report in self.reported if not report.member]
        known = {n.name: self.seen(n.name).registered for n in left}
        return tuple(
            n.name for n in left if known[n.name] is False or (known[n.name] is None and not n.is_control_plane)
        )

    @property
    def planes(self) -> tuple[Node, ...]:
        """The control planes that run and are members of the cluster."""
        return tuple(n for n in self.running if n.is_control_plane and n.name not in self.outside)

    @property
    def reported(self) -> tuple[tuple[Node, NodeReport], ...]:
        return tuple((n, self.reports[n.name]) for n in self.plan.nodes if n.name in self.reports)

    @property
    def reported_members(self) -> tuple[tuple[Node, NodeReport], ...]:
        """As `reported`, without the nodes that have left the cluster."""
        outside = self.outside
        return tuple((n, report) for n, report in self.reported if n.name not in outside)

    def process(self, node: str, name: str) -> Process | None:
        """A program on a node; None where it does not run, or the node did not report."""
        report = self.reports.get(node)
        return report.processes.get(name) if report else None

    @property
    def balancing(self) -> tuple[Node, ...]:
        """The nodes that may hold the virtual IP."""
        balancer = self.plan.load_balancer
        return tuple(n for n in self.plan.nodes if balancer is not None and n.name in balancer.nodes)

    # --- commands -----------------------------------------------------------------------------

    def ssh(self, node: str, command: str) -> str:
        """A command on a node; one with more to it than words goes to a shell there."""
        plain = shlex.join(command.split()) == command
        return f"klab ssh {self.lab} {node} -- {command if plain else shlex.quote(command)}"

    def kubectl(self, *arguments: str) -> str:
        return f"klab kubectl {self.lab} -- {shlex.join(arguments)}"

    @property
    def look_again(self) -> str:
        """For a finding that only time repairs: any other command would restart the wait."""
        return f"klab doctor {self.lab}"

    @property
    def converge(self) -> str:
        """Apply again all that a create applies."""
        return str(create_command([str(self.scenario)], self.lab, self.plan.seat))

    def recreate_node(self, node: str) -> str:
        """Recreate a node; the whole lab where the node could not join: no cluster, no control plane, no quorum."""
        alone = [n.name for n in self.plan.control_planes] == [node]
        if alone or self.facts.quorum_lost or not kubernetes(self.plan):
            return self.recreate
        return f"klab node replace {self.lab} {node}"

    @property
    def recreate(self) -> str:
        """Make the lab again; from a bundle, whose file the person knows."""
        if self.from_checkpoint:
            return f"klab destroy -y {self.lab} && {import_command('FILE', self.lab)}"
        copy = f"{self.lab}.yaml"
        saved = f"cp {shlex.quote(str(self.scenario))} {copy}"
        made = create_command([f"./{copy}"], self.lab, self.plan.seat)
        return f"{saved} && klab destroy -y {self.lab} && {made}"


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    `find` yields what is wrong, given the findings before it. `applies` tells for which labs it
    is; `unseen` why or where it cannot be judged, empty when it can; `summary` what was seen when
    nothing is wrong.
    """

    name: str
    find: Callable[[CheckContext, Before], Iterable[Finding]]
    applies: Callable[[Plan], bool] = lambda _plan: True
    unseen: Callable[[CheckContext], str] = lambda _case: ""
    summary: Callable[[CheckContext], str] = lambda _case: ""


def kubernetes(plan: Plan) -> bool:
    """For labs whose cluster is klab's."""
    return plan.bootstrap == "full"


def runtime(plan: Plan) -> bool:
    """For labs whose nodes are made ready for Kubernetes."""
    return plan.bootstrap != "none"


def with_runtime_unit(name: str, unit: str) -> Callable[[Plan], bool]:
    """For labs whose nodes run that unit of the container runtime of that name."""

    def applies(plan: Plan) -> bool:
        kubernetes = plan.kubernetes
        here = runtime(plan) and kubernetes.runtime == name
        return here and unit in component(name).units_for(kubernetes.versions.minor)

    return applies


def balanced(plan: Plan) -> bool:
    """For labs with a virtual IP."""
    return kubernetes(plan) and plan.load_balancer is not None


def unreported(case: CheckContext) -> str:
    """Which nodes did not tell of themselves."""
    if case.silent:
        return f"not asked: {', '.join(case.silent)}"
    return "" if case.reports else "no machine runs"


def through_api(of: Callable[[ClusterFacts], object]) -> Callable[[CheckContext], str]:
    """That the API server did not tell one of the facts."""
    return lambda case: "the API server does not answer" if of(case.facts) is None else ""
