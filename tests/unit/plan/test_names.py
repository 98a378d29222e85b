"""Names of a lab's things: they stay what they were, since labs of older klabs are found by them."""

from __future__ import annotations

import pytest

from lab.errors import NotFound
from lab.plan import names
from lab.plan.decide import decide
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology


def test_each_thing_has_its_name(catalog: Catalog) -> None:
    plan = decide(Scenario(version=1, name="demo"), catalog)
    assert names.domain_name(plan, "cp1") == "klab-demo_cp1"
    assert names.domain_name(plan, "cp1").startswith(names.domain_prefix(plan))
    assert names.domain_title(plan, "cp1") == "demo cp1"
    assert names.seed_volume("cp1") == "cp1-seed.iso"
    assert names.console_file("cp1") == "console-cp1.log"
    assert (plan.networks.name, plan.networks.management_name) == ("klab-demo", "klab-demo-mgmt")


def test_selected_nodes_come_in_the_plans_order(catalog: Catalog) -> None:
    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=2)), catalog)
    assert plan.select(None) == plan.nodes
    assert [node.name for node in plan.select(["w2", "cp1"])] == ["cp1", "w2"]
    assert plan.select([]) == ()
    with pytest.raises(NotFound, match="no node called 'w9'"):
        plan.select(["cp1", "w9"])
