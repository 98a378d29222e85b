"""Add-ons that klab knows by name: have their images on this machine, bring them to a lab, list and remove them.

What fetches or compiles (`fetch`) comes before a lab is entered: a private libvirt is in a network of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lab.app.boxes import DEFAULT_BOX
from lab.app.interruption import interruptible
from lab.app.labs import Note, silent
from lab.boxes.recipe import load_recipe
from lab.cluster.acts import addons as act
from lab.cluster.acts.addons import State
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.components.addons import addons
from lab.components.addons.base import Addon
from lab.components.kubernetes import DEFAULT
from lab.errors import NotFound, Remedy, RootNeeded
from lab.images.boxed import box_has, images_of_box
from lab.images.packs import take_compiled
from lab.images.record import LabImage, images_of
from lab.images.sources import Source, Sources
from lab.images.store import Image, Store
from lab.plan.model import Plan
from lab.plan.needs import refuse_unfit_addons
from lab.scenario.references import Reference, parse_reference
from lab.scenario.schema import did_you_mean
from lab.store import Home

__all__ = ["State"]

_CONTINUES = "run the same command again to continue; what has come is kept"


def named(words: Sequence[str]) -> list[Addon]:
    """The add-ons of these names, each once.

    Raises:
        NotFound: klab knows none of such a name; the hint lists those it knows.
    """
    known = addons()
    for word in words:
        if word not in known:
            close = did_you_mean(word, list(known))
            raise NotFound(f"klab knows no add-on {word!r}", hint=f"known are: {', '.join(known)}{close}")
    return [known[word] for word in dict.fromkeys(words)]


def missing_here(home: Home, plan: Plan) -> list[str]:
    """The add-ons of a plan of which this machine lacks an image, so that it has to be fetched or compiled."""
    store = Store(home)
    boxed = images_of_box(home, plan.box, plan.box_kubernetes)
    return [
        addon.name
        for addon in named(plan.named_addons)
        if any(not box_has(boxed, each) and store.find(each) is None for each in _references(addon))
    ]


def for_create(home: Home, plan: Plan, have: Iterable[LabImage], note: Note) -> list[LabImage]:
    """The images of a plan's add-ons, on this machine by then; errors as `fetch`.

    Args:
        home: klab's folder.
        plan: the lab.
        have: what is on its list already; these stay as they are.
        note: told of progress.
    """
    return _for_lab(home, plan, plan.named_addons, have, "", note)


def for_lab(lab: Lab, words: Sequence[str], note: Note) -> list[LabImage]:
    """The images of add-ons for a lab that is there, before it is entered.

    Raises:
        NotFound: as `named`.
        ScenarioError: an add-on does not fit the lab.
        LabError: as `fetch`.
    """
    names = [addon.name for addon in named(words)]
    act.refuse_unfit(lab)
    refuse_unfit_addons(lab.plan, names)
    return _for_lab(lab.home, lab.plan, names, images_of(lab.folder), lab.record.box, note)


def _for_lab(
    home: Home, plan: Plan, names: Sequence[str], have: Iterable[LabImage], box: str, note: Note
) -> list[LabImage]:
    there = {each.ref for each in have}
    boxed = images_of_box(home, plan.box, plan.box_kubernetes, box) if names else {}
    found: list[LabImage] = []
    for addon in named(names):
        wanted = [each for each in _references(addon) if str(each) not in there and not box_has(boxed, each)]
        found += _had(home, addon, wanted, dict(plan.mirrors), note)
    return found


def fetch(home: Home, words: Sequence[str], *, note: Note = silent) -> list[LabImage]:
    """Have the images of add-ons on this machine: from their registries, or compiled where these are not reached.

    Args:
        home: klab's folder.
        words: the add-ons' names.
        note: told of progress.

    Raises:
        NotFound: as `named`.
        RootNeeded: they have to be compiled, and klab does not run as root.
        ImageError, BoxError, HostError: they cannot be had.
        Interrupted: on Ctrl-C.
    """
    found: list[LabImage] = []
    for addon in named(words):
        found += _had(home, addon, _references(addon), {}, note)
    return found


def _references(addon: Addon) -> list[Reference]:
    return [parse_reference(each) for each in addon.images.values()]


def _had(
    home: Home, addon: Addon, wanted: Sequence[Reference], mirrors: Mapping[str, str], note: Note
) -> list[LabImage]:
    store = Store(home)
    missing = [each for each in wanted if store.find(each) is None]
    with interruptible(f"stopped while the images of {addon.name} were made", _CONTINUES):
        made = {each.reference: each for each in _made(home, addon, missing, mirrors, note)} if missing else {}
    kept = [made.get(each) or store.find(each) for each in wanted]
    return [LabImage.of(each) for each in kept if each is not None]


def _made(
    home: Home, addon: Addon, missing: Sequence[Reference], mirrors: Mapping[str, str], note: Note
) -> list[Image]:
    sources = Sources(Store(home), note, mirrors)
    note(f"asking registries for the images of {addon.name} {addon.version}")
    why = {each: reason for each, reason in sources.obstacles(missing).items() if reason}
    if not why:
        return sources.take([Source(str(each), reference=each) for each in missing])
    note(f"they are compiled here: {next(iter(why.values()))}")
    try:
        return take_compiled(home, addon, load_recipe(DEFAULT_BOX, DEFAULT), note)
    except RootNeeded as error:
        raise RootNeeded(
            f"the images of the add-on {addon.name} are not on this machine, and compiling them needs root",
            details=list(why.values()),
            hint=(Remedy("addon fetch", options=(addon.name,)), " compiles them, and asks for your password"),
        ) from error


def add(
    lab: Lab,
    words: Sequence[str],
    images: Sequence[LabImage],
    *,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> tuple[str, ...]:
    """Bring add-ons to a lab that `lab.app.labs` has entered, and wait until they work; returns their names.

    Args:
        lab: the lab.
        words: the add-ons' names.
        images: what `for_lab` has returned.
        timeout: how long it may take, in seconds.
        listener: told each event.

    Raises:
        LabError: as `lab.cluster.acts.addons.add`.
        Interrupted: on Ctrl-C.
    """
    names = tuple(addon.name for addon in named(words))
    with interruptible("stopped half-way; the lab still runs", _CONTINUES):
        act.add(lab.watched_by(listener, timeout), names, images)
    return names


def remove(
    lab: Lab, words: Sequence[str], *, timeout: float | None = None, listener: Listener | None = None
) -> tuple[str, ...]:
    """Take add-ons out of a lab, which was entered; arguments and errors as `add`."""
    names = tuple(addon.name for addon in named(words))
    with interruptible("stopped half-way; the lab still runs", "run the same command again to continue"):
        act.remove(lab.watched_by(listener, timeout), names)
    return names


def listed(lab: Lab) -> list[State]:
    """Every add-on that klab knows, and how it is in a lab, which was entered.

    Raises:
        LabError: the lab has no cluster of klab's, or its API server does not answer.
    """
    act.refuse_unfit(lab)
    return act.look(lab)
