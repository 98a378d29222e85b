"""The acts on a whole lab as lists of steps, which are values, run by one loop.

`create` and `start` differ by their lists (`create.steps_for`, `power.start_steps`). A step that is
told is in the journal with its beginning and its end, or its failure: progress, `--json`, the timeline and the answer
to "which step failed" come from there. Each step may be repeated: after a kill the same list is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.cluster.acts.apply import Applying, Objects
from lab.cluster.clients.api import Api
from lab.cluster.lab import Lab
from lab.cluster.wait import watch
from lab.cluster.wait.ready import Goal, Readiness, goals
from lab.cluster.wait.watch import Watch
from lab.machines.protocol import Machines
from lab.plan.model import Plan
from lab.store import Record


@dataclass(slots=True)
class Context:
    """The lab on which steps are run.

    `nodes` are the names of those that have to become Ready; `watch` waits for them. `addons` are the manifests'
    objects. `power_on` tells whether machines have to be made or started; a step may find that they need not.
    """

    lab: Lab
    record: Record
    machines: Machines
    watch: Watch
    api: Api
    addons: Objects = ()
    power_on: bool = True
    readiness: Readiness = field(init=False)

    def __post_init__(self) -> None:
        self.wait_for(self.watch)

    @classmethod
    def of(cls, lab: Lab, record: Record, machines: Machines, watch: Watch, addons: Objects = ()) -> Context:
        """The context of one run over a lab."""
        return cls(lab, record, machines, watch, lab.api(), addons)

    @property
    def plan(self) -> Plan:
        return self.watch.plan

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.watch.nodes

    def wait_for(self, watch: Watch) -> None:
        """From now on wait for the nodes of this watch."""
        self.watch = watch
        self.readiness = Readiness(watch.plan, self.api, self.machines, nodes=watch.nodes)


def _always(_context: Context) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `name` is a clause that tells what holds afterwards; `applies` is asked when the step's turn comes."""

    name: str
    run: Callable[[Context], None]
    applies: Callable[[Context], bool] = _always
    told: bool = False


def run_steps(steps: Sequence[Step], context: Context) -> None:
    """Run each step that applies, in order; errors are the steps' own.

    After a failure the machines that a step is starting are given up; those that run stay for the next try.
    """
    try:
        for step in steps:
            if step.applies(context):
                _run(step, context)
    except BaseException:
        context.watch.stop()
        raise


def _run(step: Step, context: Context) -> None:
    if not step.told:
        step.run(context)
        return
    with context.watch.journal.span("", step.name):
        step.run(context)


# --- the steps that several acts share --------------------------------------------------------------


def ready_steps(plan: Plan, *, remembered: bool = False, applies: Callable[[Context], bool] = _always) -> list[Step]:
    """One step for each thing that Ready means, in the order of `goals`."""
    return [_reach(goal, applies) for goal in goals(plan, remembered=remembered)]


def _reach(goal: Goal, applies: Callable[[Context], bool]) -> Step:
    def run(context: Context) -> None:
        context.watch.hold(context.readiness.requirement(goal), context.readiness, phase=goal.name)

    return Step(goal.name, run, applies, told=True)


def apply_step(name: str, objects: Callable[[Context], Objects]) -> Step:
    """Apply objects, each until the API server accepts it; does not apply where there are none."""

    def run(context: Context) -> None:
        _apply(context, name, objects(context))

    return Step(name, run, lambda context: bool(objects(context)), told=True)


def _apply(context: Context, name: str, objects: Objects) -> None:
    applying = Applying(context.api, name, objects)
    context.watch.until(
        applying.round,
        f"{name} applied",
        every=watch.API_POLL_SECONDS,
        missing=lambda: applying.missing,
        phase=name,
    )
