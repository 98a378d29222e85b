"""From which version of Kubernetes to which kubeadm leads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.errors import UsageError
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.plan.versions import refuse_upgrade, with_version
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario

CATALOG = load_catalog()
KNOWN = ["1.31.14", "1.32.13", "1.33.13", "1.34.4", "1.35.4", "1.36.3"]


def lab(version: str) -> Plan:
    return with_version(decide(Scenario(version=1, name="demo"), CATALOG), CATALOG.kubernetes[version])


@pytest.mark.parametrize(("before", "after"), [("1.34.4", "1.35.4"), ("1.35.4", "1.35.4"), ("1.31.14", "1.32.13")])
def test_the_next_minor_version_and_the_same_one(before: str, after: str) -> None:
    refuse_upgrade(lab(before), CATALOG.kubernetes[after], KNOWN)


def test_a_later_patch() -> None:
    refuse_upgrade(lab("1.35.4"), replace(CATALOG.kubernetes["1.35.4"], version="1.35.9"), KNOWN)


def test_not_back() -> None:
    with pytest.raises(UsageError, match=r"cannot go back to 1\.34\.4") as caught:
        refuse_upgrade(lab("1.35.4"), CATALOG.kubernetes["1.34.4"], KNOWN)
    assert "klab restore demo" in str(caught.value.hint)


def test_more_than_one_step_is_refused_with_the_way() -> None:
    with pytest.raises(UsageError, match="3 minor versions; kubeadm upgrades by one") as caught:
        refuse_upgrade(lab("1.33.13"), CATALOG.kubernetes["1.36.3"], KNOWN)
    assert str(caught.value.hint) == "one after the other: 1.34.4, 1.35.4, 1.36.3"


def test_a_way_with_a_gap_is_none() -> None:
    with pytest.raises(UsageError) as caught:
        refuse_upgrade(lab("1.28.0"), CATALOG.kubernetes["1.31.14"], KNOWN)
    assert "klab has no version for each step" in str(caught.value.hint)


def test_a_runtime_that_the_version_no_longer_has() -> None:
    plan = lab("1.23.0")
    docker = replace(plan, kubernetes=replace(plan.kubernetes, runtime="docker"))
    target = replace(CATALOG.kubernetes["1.23.0"], version="1.24.17")
    with pytest.raises(UsageError, match="cannot serve Kubernetes") as caught:
        refuse_upgrade(docker, target, KNOWN)
    assert "another runtime" in str(caught.value.hint)
