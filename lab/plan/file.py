"""A plan as text: plan.json in a lab's folder, and what `klab plan --json` prints. Pure."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from lab import records
from lab.components.cni import networks
from lab.errors import LabError, Remedy
from lab.plan.model import Plan

FORMAT = 1
# What plans of klab before it knew of them do not have, and what stands for that.
_LATER: dict[str, Any] = {"cloud_image": False, "images": []}
_PROXY_MODE = "chosen_proxy_mode"


def to_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan), default=str))
    data["kubernetes"]["versions"] = plan.kubernetes.versions.as_data()
    if plan.kubernetes.chosen_proxy_mode is None:  # as before it knew the key
        del data["kubernetes"][_PROXY_MODE]
    return {
        "format": FORMAT,
        **{key: value for key, value in data.items() if key not in _LATER or value != _LATER[key]},
    }


def to_json(plan: Plan) -> str:
    """The plan as text; equal plans give equal bytes."""
    return json.dumps(to_data(plan), indent=2) + "\n"


def from_json(text: str) -> Plan:
    """Read what `to_json` wrote.

    Raises:
        LabError: it is damaged, or of a klab that writes another format.
    """
    try:
        data = records.parse(text)
        found = records.pop_format(data)
        if found != FORMAT:
            raise LabError(
                f"this lab was made by another version of klab (plan format {found!r}, known is {FORMAT})",
                hint="use the klab that made it, or destroy it and create it again",
            )
        if isinstance(data.get("kubernetes"), dict):
            data["kubernetes"] = {_PROXY_MODE: None, **data["kubernetes"]}
        return _complete(records.build(Plan, {**_LATER, **data}, complete=True))
    except records.RecordError as error:
        raise LabError(
            "the lab's plan is damaged",
            details=[f"plan.json: {error}"],
            hint=(Remedy("destroy"), " removes what is left of the lab"),
        ) from error


def _complete(plan: Plan) -> Plan:
    """The same plan.

    Raises:
        RecordError: it lacks a version of its pod network. A network that klab does not know needs none.
    """
    kubernetes = plan.kubernetes
    known = networks().get(kubernetes.cni)
    missing = sorted(set(known.version_keys) - dict(kubernetes.versions.components).keys()) if known else []
    if missing:
        raise records.RecordError(f"kubernetes.versions lacks {', '.join(missing)}, which {kubernetes.cni} needs")
    return plan
