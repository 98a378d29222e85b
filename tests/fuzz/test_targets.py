"""Every parser of what somebody else wrote, before inputs that nobody would write."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.harness import Target, fuzz
from fuzz.registry import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-").replace("/", "-"))
def test_fuzz(target: Target, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    outcome = fuzz(target, tmp_path)
    row = {"inputs": outcome.inputs, "accepted": outcome.accepted, "refused": outcome.refused}
    request.node.user_properties.append(("fuzz", {"target": target.name, **row, "defects": len(outcome.defects)}))
    shown = [f"{kind}\n    {data[:300]!r}" for kind, data in outcome.defects.items()]
    assert not outcome.defects, f"{len(shown)} defects:\n" + "\n".join(shown)
