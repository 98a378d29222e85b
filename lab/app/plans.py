"""What a create would make, whether it can be made, and whether it fits on this machine. Makes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lab.app.kustomize import kustomize
from lab.errors import HostError, Remedy
from lab.host.capacity import check_fits, host_facts, warnings
from lab.host.local import LocalHost
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.plan.needs import lacking
from lab.scenario.catalog import Catalog, load_catalog
from lab.scenario.cloud_images import CloudImage
from lab.scenario.library import Loaded, load_scenario, shipped_names
from lab.store import Home


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, the reasons why it does not fit, what would be felt, and what no box holds of what it asks for.

    `image` is the cloud image that its box is made of, if it is. `to_fetch` are the images that neither the box nor
    this machine has, `addons_to_fetch` the add-ons that need such an image.
    """

    plan: Plan
    problems: list[str]
    warnings: list[str]
    lacking: list[str]
    image: CloudImage | None = None
    to_fetch: Sequence[str] = ()
    addons_to_fetch: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Shipped:
    """A scenario that klab ships. `needs` is what is missing here to create it, one line each; `image` as above."""

    loaded: Loaded
    plan: Plan
    needs: list[str]
    image: CloudImage | None = None


def plan(scenario: str, *, name: str | None = None, seat: int = 0, home: Home | None = None) -> Planned:
    """Decide everything about a lab.

    Raises:
        UsageError, ScenarioError: the scenario, the name or the seat is wrong.
    """
    catalog = load_catalog()
    home = home or Home.default()
    decided = decide(load_scenario(scenario, catalog, kustomize(home)).scenario, catalog, name=name, seat=seat)
    from lab.machines.providers import choose_provider, provider_named  # late: `check` needs neither

    lacks, image = lacking(decided, catalog), catalog.images.get(decided.box)
    fetched, addons = to_fetch(decided, home), addons_to_fetch(decided, home)
    try:
        provider = provider_named(choose_provider("auto"))
        disks, networks = provider.disk_room(home, decided.pool), provider.networks(decided)
    except HostError as error:
        return Planned(decided, ["; ".join((error.message, *error.details))], [], lacks, image, fetched, addons)
    facts = host_facts(LocalHost(home), disks)
    problems, felt = check_fits(decided, facts, networks), warnings(decided, facts, networks)
    return Planned(decided, problems, felt, lacks, image, fetched, addons)


def check(scenario: str) -> Plan:
    """The plan of a scenario, whatever this machine has room for; errors as `plan`."""
    catalog = load_catalog()
    return decide(load_scenario(scenario, catalog, kustomize(Home.default())).scenario, catalog)


def lacks(plan: Plan) -> list[str]:
    """What no box holds of what a plan asks for, one line each."""
    return lacking(plan, load_catalog())


def to_fetch(plan: Plan, home: Home | None = None) -> list[str]:
    """The images of a plan that neither its box nor this machine has: klab create asks their registries for them."""
    if not plan.images:
        return []
    from lab.app.images import missing_here  # late, as above

    return missing_here(home or Home.default(), plan)


def addons_to_fetch(plan: Plan, home: Home | None = None) -> list[str]:
    """The add-ons of a plan whose images klab create has to fetch or to compile."""
    if not plan.named_addons:
        return []
    from lab.app.addons import missing_here  # late, as above

    return missing_here(home or Home.default(), plan)


def shipped(home: Home | None = None) -> list[Shipped]:
    """The scenarios that klab ships, each with its plan and what it needs here."""
    from lab.boxes.store import list_boxes  # late, as above

    home, catalog = home or Home.default(), load_catalog()
    loaded = [load_scenario(name, catalog) for name in shipped_names()]
    plans = [decide(each.scenario, catalog) for each in loaded]
    built = {(box.recipe, box.kubernetes) for box in list_boxes(home) if not box.origin}
    return [
        Shipped(each, plan, _needs(plan, catalog, built), catalog.images.get(plan.box))
        for each, plan in zip(loaded, plans, strict=True)
    ]


def _needs(plan: Plan, catalog: Catalog, built: Collection[tuple[str, str]]) -> list[str]:
    if lines := lacking(plan, catalog):
        return lines
    version = plan.box_kubernetes
    if (plan.box, version) in built:
        return []
    if image := catalog.images.get(plan.box):
        return [f"a box: {Remedy('box build', options=(plan.box, '--image', image.file))}, from {image.address}"]
    return [f"a box: {Remedy('box build', options=(plan.box, '--kubernetes', version))}"]
