"""What a create would make, and whether that fits on this machine. Makes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import HostError
from lab.host.capacity import check_fits, host_facts, warnings
from lab.host.local import LocalHost
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.library import Loaded, load_scenario, shipped_names
from lab.store import Home


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, the reasons why it does not fit, and what would be felt."""

    plan: Plan
    problems: list[str]
    warnings: list[str]


def plan(scenario: str, *, name: str | None = None, seat: int = 0, home: Home | None = None) -> Planned:
    """Decide everything about a lab.

    Raises:
        UsageError, ScenarioError: the scenario, the name or the seat is wrong.
    """
    catalog = load_catalog()
    decided = decide(load_scenario(scenario, catalog).scenario, catalog, name=name, seat=seat)
    from lab.machines.providers import choose_provider, provider_named  # late: `check` needs neither

    home = home or Home.default()
    try:
        provider = provider_named(choose_provider("auto"))
        disks, networks = provider.disk_room(home, decided.pool), provider.networks(decided)
    except HostError as error:
        return Planned(decided, ["; ".join((error.message, *error.details))], [])
    facts = host_facts(LocalHost(home), disks)
    return Planned(decided, check_fits(decided, facts, networks), warnings(decided, facts, networks))


def check(scenario: str) -> Plan:
    """The plan of a scenario, whatever this machine has room for; errors as `plan`."""
    catalog = load_catalog()
    return decide(load_scenario(scenario, catalog).scenario, catalog)


def shipped() -> list[tuple[Loaded, Plan]]:
    """The scenarios that klab ships, each with its plan."""
    catalog = load_catalog()
    found = [load_scenario(name, catalog) for name in shipped_names()]
    return [(each, decide(each.scenario, catalog)) for each in found]
