"""The plan of every shipped scenario, as a reviewer sees it change. `make golden` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.plan.decide import decide
from lab.plan.file import from_json, to_json
from lab.scenario.catalog import load_catalog
from lab.scenario.library import load_scenario, shipped_names

GOLDEN = Path(__file__).parent / "plan"


@pytest.mark.parametrize("name", shipped_names())
def test_plan_is_as_reviewed(name: str) -> None:
    catalog = load_catalog()
    plan = decide(load_scenario(name, catalog).scenario, catalog)
    file = GOLDEN / f"{name}.json"
    if os.environ.get("KLAB_GOLDEN"):
        file.write_text(to_json(plan))
    assert to_json(plan) == file.read_text()
    assert from_json(file.read_text()) == plan


def test_no_golden_plan_is_left_over() -> None:
    assert sorted(file.stem for file in GOLDEN.iterdir()) == shipped_names()
