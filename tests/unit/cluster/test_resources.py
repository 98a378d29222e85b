"""What klab reads of Kubernetes' objects."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from support.lab_servers import node, token

from lab.cluster.clients.resources import BootstrapToken, bootstrap_token, condition, is_ready


def secret(**data: str) -> dict[str, Any]:
    return {"data": {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in data.items()}}


def test_a_condition_is_found_by_its_type() -> None:
    assert condition(node("w1", why="because"), "Ready")["message"] == "because"
    assert condition({"metadata": {}}, "Ready") == {}
    assert is_ready(node("w1"))
    assert not is_ready(node("w1", ready=False))
    assert not is_ready({})


def test_a_token_is_read_with_its_end() -> None:
    assert bootstrap_token(token("abcdef", hours=1, now=1e9)) == BootstrapToken("abcdef", 1e9 + 3600)
    assert bootstrap_token(token("abcdef", hours=None)) == BootstrapToken("abcdef", None)


def test_a_secret_that_no_node_can_join_with_is_left_out() -> None:
    assert bootstrap_token(token("abcdef", hours=1, usage="false")) is None
    assert bootstrap_token({"data": None}) is None
    assert bootstrap_token({"data": {"usage-bootstrap-authentication": "%%%"}}) is None


def test_a_date_that_is_invalid_is_an_error() -> None:
    with pytest.raises(ValueError, match="isoformat"):
        bootstrap_token(secret(usage_bootstrap_authentication="true", expiration="tomorrow"))
