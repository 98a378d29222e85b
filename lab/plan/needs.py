"""What no box holds of what a plan asks for. A scenario describes a lesson, whether its parts can be had or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab.components.addons import addons
from lab.components.cni import network, networks
from lab.components.runtime import runtimes
from lab.errors import ScenarioError
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog


def lacking(plan: Plan, catalog: Catalog) -> list[str]:
    """What the plan's box lacks, one line each; empty where its recipe holds everything."""
    if plan.cloud_image:  # the lesson brings everything
        return []
    kubernetes, own = plan.kubernetes, catalog.recipes[plan.box]
    version, runtime, cni = kubernetes.version, kubernetes.runtime, kubernetes.cni
    # With that version: another one is another lesson.
    others = {box: each for box, each in catalog.recipes.items() if version in each.kubernetes}

    def line(what: str, needs: str, there: Iterable[str], elsewhere: list[str]) -> str:
        where = f", which the box {' or '.join(elsewhere)} has" if elsewhere else f" ({needs})" if needs else ""
        return f"{what}{where}; the box {plan.box} has {', '.join(there)}"

    lines = []
    if version not in own.kubernetes:
        lines.append(line(f"Kubernetes {version}", "", own.kubernetes, list(others)))
    # On plain machines the others are the student's.
    if plan.bootstrap != "none" and runtime not in own.runtimes:
        elsewhere = [box for box, each in others.items() if runtime in each.runtimes]
        lines.append(line(f"the runtime {runtime}", runtimes()[runtime].needs, own.runtimes, elsewhere))
    if plan.bootstrap != "none" and cni not in own.cnis:
        elsewhere = [box for box, each in others.items() if cni in each.cnis]
        lines.append(line(f"the pod network {cni}", networks()[cni].needs, own.cnis, elsewhere))
    return lines


def refuse_unfit_addons(plan: Plan, names: Sequence[str]) -> None:
    """Make sure that add-ons can run in the lab of a plan.

    Args:
        plan: the lab.
        names: of `lab.components.addons`.

    Raises:
        ScenarioError: one of them cannot.
    """
    reasons = [why for name in names if (why := addons()[name].refusal(plan))]
    if reasons:
        raise ScenarioError(
            f"the lab {plan.name!r} cannot have every add-on",
            details=reasons,
            hint="leave it out, or change what it is about in the scenario",
        )


def enforces_policies(plan: Plan) -> bool:
    """Whether NetworkPolicy objects are enforced in a lab of this plan, from its beginning."""
    if network(plan.kubernetes.cni).enforces_policies:
        return True
    return any(addons()[name].enforces_policies for name in plan.named_addons)
