"""What a lab needs where the environment names a proxy."""

from __future__ import annotations

import pytest

from lab.cluster.clients.proxies import straight_to
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology

PROXY = "http://proxy.example:3128"


@pytest.fixture
def plan() -> Plan:
    scenario = Scenario(version=1, name="demo", topology=Topology(control_planes=3, workers=1))
    return decide(scenario, load_catalog())


def test_without_a_proxy_nothing_changes(plan: Plan) -> None:
    assert straight_to(plan, {"NO_PROXY": "example.org", "HTTPS_PROXY": ""}) == {}


@pytest.mark.parametrize("way", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_the_labs_network_and_every_address_are_exceptions(plan: Plan, way: str) -> None:
    found = straight_to(plan, {way: PROXY})
    assert set(found) == {"NO_PROXY", "no_proxy"}
    wanted = "192.168.56.0/24,192.168.56.11,192.168.56.12,192.168.56.13,192.168.56.21,192.168.56.10"
    assert set(found.values()) == {wanted}
    assert str(plan.api_endpoint[0]) in wanted.split(",")


def test_what_the_person_excepts_stays(plan: Plan) -> None:
    found = straight_to(plan, {"https_proxy": PROXY, "no_proxy": "localhost, .example.org"})
    assert found["NO_PROXY"].startswith("localhost,.example.org,192.168.56.0/24,")
    both = straight_to(plan, {"https_proxy": PROXY, "NO_PROXY": "one", "no_proxy": "two"})
    assert both["no_proxy"].startswith("one,192.168.56.0/24,")
