"""A plan as text: plan.json in a lab's folder, and what `klab plan --json` prints. Pure."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from lab.components.kubernetes.versions import KubernetesVersion
from lab.errors import LabError
from lab.plan.model import Plan

FORMAT = 1


def to_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values."""
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(plan), default=str))
    data["kubernetes"]["versions"] = plan.kubernetes.versions.as_data()
    return {"format": FORMAT, **data}


def to_json(plan: Plan) -> str:
    """The plan as text; equal plans give equal bytes."""
    return json.dumps(to_data(plan), indent=2) + "\n"


def from_json(text: str) -> Plan:
    """Read what `to_json` wrote.

    Raises:
        LabError: it is damaged, or of a klab that writes another format.
    """
    try:
        data = json.loads(text)
        found = data.pop("format")
        if found != FORMAT:
            raise LabError(
                f"this lab was made by another version of klab (plan format {found!r}, known is {FORMAT})",
                hint="use the klab that made it, or destroy it and create it again",
            )
        plan = _read(Plan, data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(error) from error
    assert isinstance(plan, Plan)  # noqa: S101 - for the type checker
    return plan


def _damaged(error: Exception) -> LabError:
    return LabError(
        "the lab's plan is damaged",
        details=[f"plan.json: {error}"],
        hint="klab destroy removes what is left of the lab",
    )


def _read(wanted: Any, value: Any) -> Any:
    """A value as the type that a dataclass field wants."""
    if wanted is KubernetesVersion:
        return KubernetesVersion.from_data(value)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        hints = typing.get_type_hints(wanted)
        if not isinstance(value, dict) or value.keys() != hints.keys():
            raise ValueError(f"{wanted.__name__} has other keys")
        return wanted(**{name: _read(hint, value[name]) for name, hint in hints.items()})
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is types.UnionType:
        return None if value is None else _read(next(a for a in arguments if a is not types.NoneType), value)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_read(arguments[0], item) for item in value)
        return tuple(_read(argument, item) for argument, item in zip(arguments, value, strict=True))
    if wanted in (IPv4Address, IPv4Network) and isinstance(value, str):
        return wanted(value)
    if type(value) is wanted:
        return value
    raise ValueError(f"{value!r} is not what belongs here")
