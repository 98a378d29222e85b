"""Make a lab from a scenario: `prepare` asks every part of klab once, `make` makes the lab, `create` does both."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab.app import addons
from lab.app.images import for_create
from lab.app.kustomize import kustomize
from lab.app.labs import Labs, Note, silent
from lab.boxes.manifest import Box
from lab.boxes.store import box_of, find_box, vagrant_box
from lab.cluster.acts import create as act
from lab.cluster.acts.create import Created as Created
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.components.kubernetes.proxy import MODES
from lab.components.kubernetes.sources import SOURCE
from lab.errors import Advice, BoxError, Conflict, HostError, Interrupted, Remedy
from lab.host.capacity import HostFacts, LabNetworks, answering, check_fits, host_facts, warnings
from lab.host.local import LocalHost
from lab.host.network import returning, stop_unused_private_libvirt
from lab.host.profile import HostProfile
from lab.images.record import LabImage, images_of
from lab.machines.providers import choose_provider, enter_host, provider_named
from lab.plan.changes import as_changed
from lab.plan.decide import decide
from lab.plan.file import from_json
from lab.plan.model import Plan, create_command, import_command
from lab.plan.needs import lacking
from lab.scenario.catalog import Catalog, load_catalog
from lab.scenario.library import Loaded, load_scenario, shipped_names
from lab.store import Home, LabFolder, Record

_LOG = logging.getLogger("klab.create")


@dataclass(frozen=True, slots=True)
class Request:
    """Which lab is wanted.

    Args:
        scenario: the name of a shipped scenario, or the path of a file.
        name: the lab's name; the scenario's own where it is None.
        provider: its name, such as "libvirt", or "auto" for the one that is installed.
        seat: the student's number, from 0.
    """

    scenario: str
    name: str | None = None
    provider: str = "auto"
    seat: int = 0

    @property
    def command(self) -> Remedy:
        """The command that asks for the same."""
        return create_command([self.scenario], self.name, self.seat)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A lab of which everything is decided; it fits on this machine.

    The thread that prepared it is where its machines will be. `where` names the libvirt or the provider, `images` are
    those that every node shall have beside its box's; this machine keeps them.
    """

    request: Request
    lab: Lab
    scenario: Loaded
    provider: str
    box: Box
    profile: HostProfile
    where: str
    images: Sequence[LabImage] = ()

    @property
    def plan(self) -> Plan:
        return self.lab.plan


def create(
    request: Request,
    *,
    home: Home | None = None,
    timeout: float | None = None,
    listener: Listener | None = None,
    note: Note = silent,
) -> Created:
    """Make a lab, or continue with one that is half made, and wait until it is Ready.

    Afterwards the calling thread is where it was before, so that it can make a lab in another folder, too.

    Args:
        request: which lab.
        home: klab's folder; KLAB_HOME when left out.
        timeout: how long it may take, in seconds.
        listener: told each event.
        note: told what a person shall know beforehand.

    Raises:
        LabError: as `prepare` and `lab.cluster.acts.create.create`; `Interrupted` on Ctrl-C.
    """
    with returning():
        prepared = prepare(request, home=home, note=note)
        with making(prepared.lab.home, prepared.lab.folder, request.command):
            return make(prepared, timeout=timeout, listener=listener)


def prepare(request: Request, *, home: Home | None = None, note: Note = silent) -> Prepared:
    """Decide everything about a lab, and refuse what cannot be, before anything is made.

    Args:
        request: which lab.
        home: klab's folder; KLAB_HOME when left out.
        note: told what a person shall know beforehand.

    Raises:
        UsageError, ScenarioError: the request or the scenario is wrong.
        Conflict: another lab has this name.
        HostError: it does not fit on this machine.
        BoxError: no box fits.
        ImageError, NotFound: an image of the scenario's is neither here nor to be had.
        Interrupted: on Ctrl-C.
    """
    home = home or Home.default()
    catalog = load_catalog()
    loaded = load_scenario(request.scenario, catalog, kustomize(home))
    plan = decide(loaded.scenario, catalog, name=request.name, seat=request.seat)
    folder = home.lab(plan.name)
    record = folder.record() if folder.exists else None
    if record is None:
        refuse_lacking(plan, catalog)
    else:
        refuse_half_made_from_a_file(record)
        plan = present_plan(folder, plan, loaded.text)
    provider = provider_for(request.provider, record)
    box = _box(home, plan, record)
    if record is None:
        refuse_lacking_ipset(plan, box)
    _LOG.info("lab %s: provider %s, box %s", plan.name, provider, box.folder.name)
    images: list[LabImage] = []
    if plan.images or plan.named_addons:
        # A private libvirt has a network of its own, in which no registry answers.
        there = images_of(folder)
        images = [*for_create(home, plan, there, note), *addons.for_create(home, plan, there, note)]
    # Before the lab's network exists: the routes of the host are what it must not collide with.
    where = enter_host(provider, home)
    if record is not None:
        # By its own plan, which may differ from the one that is asked for.
        Labs(home).open(plan.name, note=note)
    with making(home, folder, request.command):
        profile = profile_for(provider, home, plan, record)
        if record is None:
            hint = (
                Remedy("plan", options=(plan.scenario,)),
                " shows what it needs; smaller sizes go into the scenario file",
            )
            disks = provider_named(provider).disk_room(home, plan.pool)
            networks = provider_named(provider).networks(plan)
            refuse_what_does_not_fit(plan, host_facts(LocalHost(home), disks), networks, [], hint, note)
    return Prepared(request, Lab(home, folder, plan), loaded, provider, box, profile, where, images)


def make(prepared: Prepared, *, timeout: float | None = None, listener: Listener | None = None) -> Created:
    """Make the lab that was prepared; call it inside `making`. Arguments and errors as `create`."""
    home, box, loaded = prepared.lab.home, prepared.box, prepared.scenario
    wanted = act.CreateRequest(
        scenario_text=loaded.text,
        provider=prepared.provider,
        profile=prepared.profile,
        box_name=box.folder.name,
        box_vagrant=vagrant_box(home, box, prepared.provider, {node.disk for node in prepared.plan.nodes}),
        addons=loaded.addons,
        mirror_access=loaded.mirror_access,
        images=prepared.images,
    )
    return act.create(prepared.lab.watched_by(listener, timeout), wanted)


def present_plan(folder: LabFolder, plan: Plan, scenario_text: str) -> Plan:
    """The plan of a lab that was made from this very scenario, and was scaled or upgraded; else the scenario's own.

    Raises:
        LabError: the lab's plan is damaged.
    """
    there = from_json(folder.plan_text())
    try:
        same = folder.scenario_file.read_text(encoding="utf-8") == scenario_text
    except (OSError, UnicodeDecodeError):
        same = False
    return as_changed(there, plan) if same else plan


def _box(home: Home, plan: Plan, record: Record | None) -> Box:
    """The box to use: the one the lab was begun with, as long as it is there, else the newest that fits."""
    if record is not None and (box := box_of(home, record.box)):
        return box
    return find_box(home, plan.box, plan.box_kubernetes)


# --- what a lab from a scenario and one from a file have in common -----------------------------------------


def refuse_half_made_from_a_file(record: Record) -> None:
    """Make sure that a lab that is only partly imported from a bundle is not continued from a scenario: the
    machines of both would form no cluster.

    Raises:
        Conflict: the lab was begun from a bundle.
    """
    if record.checkpoint and record.phase == "creating":
        command = import_command("FILE", record.name)
        raise Conflict(
            f"lab {record.name!r} is only partly imported from a bundle",
            hint=(command, " continues the import, ", Remedy("destroy", lab=record.name), " removes it"),
        )


@contextmanager
def making(home: Home, folder: LabFolder, command: Remedy) -> Iterator[None]:
    """Say what a Ctrl-C has left of a lab that is being made, and end the private libvirt where nothing was made in it.

    Args:
        home: klab's folder.
        folder: the lab's.
        command: the command line, for the hint.

    Raises:
        Interrupted: on Ctrl-C.
    """
    try:
        yield
    except BaseException as error:
        stop_unused_private_libvirt(home)
        if not isinstance(error, KeyboardInterrupt):
            raise
        if not folder.exists:
            raise Interrupted("stopped before anything of the lab was made", hint=(command, " begins again")) from None
        raise Interrupted(
            "stopped; the machines made so far are still there",
            hint=(command, " again continues from here; ", Remedy("destroy", lab=folder.name), " removes it"),
        ) from None


def refuse_lacking(plan: Plan, catalog: Catalog) -> None:
    """Make sure that a box can hold what a plan asks for.

    Raises:
        BoxError: none can; the hint names the scenario's variants, which are called like it, with more behind it.
    """
    lines = lacking(plan, catalog)
    if not lines:
        return
    variants = [name for name in shipped_names() if name.startswith(f"{plan.scenario}-")]
    hint: Advice = (Remedy("scenarios"), " shows which can be created here; this one can be read, checked and planned")
    if variants:
        hint = (Remedy("create", options=(variants[0],)), " makes the same lesson of parts that can be had everywhere")
    raise BoxError(
        f"no box has all that the scenario {plan.scenario!r} asks for",
        details=[f"missing: {line}" for line in lines],
        hint=hint,
    )


def refuse_lacking_ipset(plan: Plan, box: Box) -> None:
    """Make sure that kube-proxy's image in a box has what the plan's mode needs.

    Raises:
        BoxError: it does not; the hint tells how such a box is made.
    """
    mode = plan.kubernetes.proxy_mode
    if plan.bootstrap != "full" or not MODES[mode].ipset or box.source != SOURCE:
        return
    version = plan.kubernetes.version
    raise BoxError(
        f"kube-proxy in the box {box.folder.name} cannot work in the mode {mode}",
        details=["its image was packed by klab and has no ipset; upstream's has"],
        hint=(
            Remedy("box build", options=(plan.box, "--kubernetes", version, "--source", "release")),
            " makes a box with upstream's image; or choose another kubernetes.proxy_mode in the scenario",
        ),
    )


def provider_for(wanted: str, record: Record | None) -> str:
    """The provider to use: the lab's own where it exists.

    Raises:
        Conflict: another one is asked for.
    """
    if record is None:
        return choose_provider(wanted)
    if wanted not in {"auto", record.provider}:
        raise Conflict(
            f"lab {record.name!r} exists on {record.provider}, not on {wanted}",
            hint=(Remedy("destroy", lab=record.name), " first, or choose another name with --name"),
        )
    return record.provider


def profile_for(provider: str, home: Home, plan: Plan, record: Record | None) -> HostProfile:
    """How a lab's machines run here: decided when the lab is made, for good.

    Raises:
        HostError: as `lab.machines.features.Provider.profile`.
    """
    if record is not None:
        return HostProfile(record.accelerated, record.dilation)
    return provider_named(provider).profile(home, plan.cpus)


def refuse_what_does_not_fit(
    plan: Plan, facts: HostFacts, networks: LabNetworks, others: Sequence[str], hint: Advice, note: Note = silent
) -> None:
    """Make sure that a lab fits on this machine, and say what will be felt.

    Args:
        plan: the lab.
        facts: the machine.
        networks: what the lab's provider takes there.
        others: what else keeps it from running, one line each.
        hint: what to do where something does.
        note: told what will be felt.

    Raises:
        HostError: it does not fit.
    """
    problems = [*check_fits(plan, facts, networks), *others]
    if plan.load_balancer is not None and (holder := answering(plan.load_balancer.vip)):
        problems.append(f"the virtual IP {plan.load_balancer.vip} is taken: {holder} answers there already")
    if problems:
        raise HostError(f"{plan.name} does not fit on this machine", details=problems, hint=hint)
    for line in warnings(plan, facts, networks):
        note(line)
