"""The manifest of a lab's pod network, as text."""

from __future__ import annotations

from lab.components.cni import network
from lab.plan.model import Plan
from lab.render.yamltext import dump_all


def render_manifest(plan: Plan) -> str:
    """The pod network's objects as YAML, ready for `kubectl apply`; empty where it has none."""
    objects = network(plan.kubernetes.cni).manifest(plan)
    return dump_all(objects) if objects else ""
