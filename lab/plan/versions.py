"""A lab's plan with another version of Kubernetes, and whether kubeadm leads from one to the other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from lab.components.kubernetes.versions import KubernetesVersion
from lab.components.runtime import runtime
from lab.errors import Remedy, UsageError
from lab.plan.model import Plan


def with_version(plan: Plan, versions: KubernetesVersion) -> Plan:
    """The plan with this Kubernetes, and all that goes with it."""
    return replace(plan, kubernetes=replace(plan.kubernetes, versions=versions))


def refuse_upgrade(plan: Plan, target: KubernetesVersion, known: Iterable[str]) -> None:
    """Make sure that kubeadm can upgrade a lab to a version: a later patch, or the next minor version.

    Args:
        plan: the lab, as it is now.
        target: the version that is asked for.
        known: the versions that klab knows, oldest first.

    Raises:
        UsageError: it cannot; the hint tells the way, where there is one.
    """
    now = plan.kubernetes.versions
    if numbers(target.version) < numbers(now.version):
        raise UsageError(
            f"lab {plan.name!r} has Kubernetes {now.version}, and kubeadm cannot go back to {target.version}",
            hint=(Remedy("restore", lab=plan.name), " brings back a snapshot from before an upgrade"),
        )
    step = target.minor[1] - now.minor[1]
    if target.minor[0] != now.minor[0] or step > 1:
        raise UsageError(
            f"from Kubernetes {now.version} to {target.version} are {step} minor versions; kubeadm upgrades by one",
            hint=_way(now, target, known),
        )
    containers = runtime(plan.kubernetes.runtime)
    why = containers.refusal(target.minor)
    if not why and containers.socket(now.minor) != containers.socket(target.minor):
        why = f"its kubelets reach it in another way than those of {now.version}, through {containers.needs}"
    if why:
        raise UsageError(
            f"{containers.name} of lab {plan.name!r} cannot serve Kubernetes {target.version}: {why}",
            hint="make a lab of that version with another runtime: kubernetes.runtime in the scenario",
        )


def _way(now: KubernetesVersion, target: KubernetesVersion, known: Iterable[str]) -> str:
    newest: dict[int, str] = {}
    for version in known:
        major, minor, _ = numbers(version)
        if major == now.minor[0] and now.minor[1] < minor < target.minor[1]:
            newest[minor] = version
    steps = target.minor[1] - now.minor[1] - 1
    if len(newest) < steps:
        return "klab has no version for each step on the way; make a lab of that version instead"
    return f"one after the other: {', '.join([*newest.values(), target.version])}"


def numbers(version: str) -> tuple[int, ...]:
    """A version's numbers, by which it is compared with others: "1.35.4" is (1, 35, 4), also as "v1.35.4+lesson"."""
    found = re.match(r"v?([0-9]{1,9}(?:\.[0-9]{1,9})*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
