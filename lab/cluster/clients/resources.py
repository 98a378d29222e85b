"""What klab reads of Kubernetes' objects, as the API server's JSON has them. Who answers may be a guest: see Raises."""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """A bootstrap token that a node can join with, until it `expires` (seconds since 1970); None for never."""

    id: str
    expires: float | None


def condition(thing: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """An object's condition of this type; empty where it has none.

    Raises:
        AttributeError, KeyError, TypeError: the object has another shape.
    """
    conditions = thing.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})


def is_ready(thing: Mapping[str, Any]) -> bool:
    """Whether an object's condition Ready is true; errors as in `condition`."""
    return condition(thing, "Ready").get("status") == "True"


def bootstrap_token(secret: Mapping[str, Any]) -> BootstrapToken | None:
    """The bootstrap token in a Secret; None where no node can join with it.

    Raises:
        AttributeError, TypeError, ValueError, OverflowError: the Secret has another shape, or its date is invalid.
    """
    data = {key: _decoded(value) for key, value in (secret.get("data") or {}).items()}
    if data.get("usage-bootstrap-authentication") != "true":
        return None
    expires = datetime.datetime.fromisoformat(data["expiration"]).timestamp() if "expiration" in data else None
    return BootstrapToken(data.get("token-id", ""), expires)


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, ValueError):
        return ""
