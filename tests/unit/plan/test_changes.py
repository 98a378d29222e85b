"""Plans that grow and shrink."""

from __future__ import annotations

import pytest

from lab.errors import Conflict, NotFound, UsageError
from lab.plan.changes import refuse_even, surplus, with_node, without_nodes
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology
from lab.scenario.rules import quorum


def plan_of(control_planes: int, workers: int, **topology: object) -> Plan:
    wanted = Topology(control_planes=control_planes, workers=workers, **topology)  # type: ignore[arg-type]
    return decide(Scenario(version=1, name="demo", topology=wanted), load_catalog())


def names(plan: Plan) -> list[str]:
    return [node.name for node in plan.nodes]


def test_a_lab_that_has_grown_equals_one_made_that_large() -> None:
    assert with_node(plan_of(1, 1), "worker") == plan_of(1, 2)
    assert with_node(with_node(plan_of(3, 2), "control-plane"), "control-plane") == plan_of(5, 2)


def test_a_lab_that_has_shrunk_equals_one_made_that_small() -> None:
    assert without_nodes(plan_of(1, 2), ["w2"]) == plan_of(1, 1)
    assert without_nodes(plan_of(5, 1), ["cp4", "cp5"]) == plan_of(3, 1)


def test_a_node_that_comes_back_is_the_same_node() -> None:
    plan = plan_of(3, 2)
    back = with_node(without_nodes(plan, ["w1"]), "worker", "w1")
    assert back.node("w1") == plan.node("w1")


def test_a_gap_is_filled_first() -> None:
    assert names(with_node(without_nodes(plan_of(1, 3), ["w2"]), "worker")) == ["cp1", "w1", "w3", "w2"]


def test_a_node_may_have_a_name_of_its_own() -> None:
    node = with_node(plan_of(1, 1), "worker", "gpu").node("gpu")
    assert node is not None
    assert node.role == "worker"
    assert node.memory == plan_of(1, 1).workers[0].memory


def test_identities_stay_unique() -> None:
    plan = plan_of(3, 2)
    for role in ("worker", "control-plane", "worker"):
        plan = with_node(plan, role)  # type: ignore[arg-type]
    for what in ("name", "address", "uuid", "mac", "management_mac"):
        assert len({getattr(n, what) for n in plan.nodes}) == 8, what
    assert plan.load_balancer is not None
    assert plan.load_balancer.vip not in {n.address for n in plan.nodes}


def test_load_balancers_stay_where_they_were_wanted() -> None:
    everywhere = with_node(plan_of(3, 0), "control-plane").load_balancer
    assert everywhere is not None
    assert everywhere.nodes == ("cp1", "cp2", "cp3", "cp4")
    first_two = with_node(plan_of(3, 0, load_balancers="first-two"), "control-plane").load_balancer
    assert first_two is not None
    assert first_two.nodes == ("cp1", "cp2")
    moved = without_nodes(plan_of(3, 0, load_balancers="first-two"), ["cp1"]).load_balancer
    assert moved is not None
    assert moved.nodes == ("cp2", "cp3")


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    with pytest.raises(Conflict, match="has a node called 'w1' already"):
        with_node(plan_of(1, 1), "worker", "w1")
    with pytest.raises(UsageError, match="cannot have this name"):
        with_node(plan_of(1, 1), "worker", "W_1")
    with pytest.raises(UsageError, match="no virtual IP"):
        with_node(plan_of(1, 1), "control-plane")
    with pytest.raises(UsageError, match="at most 7"):
        with_node(plan_of(7, 1), "control-plane")
    with pytest.raises(NotFound, match="no node called 'w9'"):
        without_nodes(plan_of(1, 1), ["w9"])
    with pytest.raises(UsageError, match="needs a control plane"):
        without_nodes(plan_of(1, 1), ["cp1"])


def test_even_numbers_are_explained() -> None:
    with pytest.raises(UsageError, match="4 control planes need 3 of them for a quorum and survive the loss of 1"):
        refuse_even(4, allow=False)
    refuse_even(4, allow=True)
    refuse_even(3, allow=False)


def test_the_last_nodes_go_first() -> None:
    assert surplus(plan_of(1, 4), "worker", 2) == ["w4", "w3"]
    assert surplus(plan_of(1, 1), "worker", 3) == []


def test_quorum() -> None:
    assert [quorum(n) for n in (1, 2, 3, 4, 5, 7)] == [1, 2, 2, 3, 3, 4]
