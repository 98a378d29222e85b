"""Images of lessons: fetch them, bring them to a lab's nodes, list and remove them, and tell what manifests ask for.

What fetches (`fetch`, `check`) asks registries of this machine, and comes before a lab is entered: a private libvirt
is in a network of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lab.app.boxes import DEFAULT_BOX
from lab.app.interruption import interruptible
from lab.app.labs import Note, silent
from lab.boxes.manifest import Box
from lab.boxes.recipe import load_recipe, own_builds
from lab.boxes.store import list_boxes
from lab.cluster.acts import images as act
from lab.cluster.acts.images import Loaded
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.components.kubernetes import DEFAULT
from lab.errors import NotFound, Remedy, RootNeeded, UsageError
from lab.images.boxed import box_has, images_of_box
from lab.images.packs import take_own_builds
from lab.images.record import LabImage, images_of
from lab.images.sources import Sources, parse_source
from lab.images.store import Image, Store
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.manifest_files import load_manifests
from lab.scenario.pod_images import images_of as images_of_objects
from lab.scenario.references import Reference, parse_reference
from lab.scenario.schema import did_you_mean
from lab.store import Home

__all__ = ["LabImage", "Loaded"]

Place = Literal["lab", "box", "machine", "registry", "nowhere", "invalid"]
# Where an image can be had, if the lab does not have it.
TO_BE_HAD: tuple[Place, ...] = ("machine", "registry")
_CONTINUES = "run the same command again to continue; what has come is kept"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images, and where from.

    Args:
        words: files, folders, or references.
        name: what to call the only image of a file or folder.
        box: the box, by name or the beginning of its digest, that `words` are images of.
        ask_again: ask the registry for an image that this machine keeps, too; build it again.
        own_build: klab's own builds from Debian packages, under the names in `words`; no registry is asked.
    """

    words: Sequence[str]
    name: str | None = None
    box: str | None = None
    ask_again: bool = False
    own_build: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """One image that klab has brought to a lab. `nodes` tells of each that answers whether it has it."""

    image: LabImage
    nodes: Mapping[str, bool | None]

    @property
    def complete(self) -> bool:
        """Whether every node has it, as far as is known."""
        return all(has is not False for has in self.nodes.values())


@dataclass(frozen=True, slots=True)
class Kept:
    """One image that this machine keeps, and the labs that have it. `own_build`: klab has built it."""

    ref: str
    digest: str
    size: int
    labs: tuple[str, ...]
    own_build: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One image that manifests ask for.

    `image` is its whole name, or the text that is not a valid reference. `place` is where it is: on the lab's nodes
    ("lab"), in their box, on this machine, in its registry, or nowhere; `why` tells what keeps it from being had.
    `uses` are the places that name it; `never` those whose pull policy keeps a node from asking its registry.
    `own_build`: it is nowhere to be had, and klab can build its own from Debian packages.
    """

    image: str
    place: Place
    why: str
    uses: tuple[str, ...]
    never: tuple[str, ...] = ()
    own_build: bool = False

    @property
    def there(self) -> bool:
        """Whether a node has it."""
        return self.place in {"lab", "box"}


@dataclass(frozen=True, slots=True)
class Checked:
    """What manifests ask for.

    `left_out` says why files of a folder were not read, by name; `box` is the one that it was held to.
    """

    images: tuple[Asked, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    box: str = ""

    @property
    def missing(self) -> tuple[Asked, ...]:
        return tuple(each for each in self.images if not each.there)


def fetch(
    home: Home, wanted: Wanted, *, mirrors: Mapping[str, str] | None = None, note: Note = silent
) -> list[LabImage]:
    """Have images on this machine, for the nodes of labs that are there and of those that come.

    Args:
        home: klab's folder.
        wanted: which images.
        mirrors: the mirrors of registries, as a scenario has them.
        note: told of progress.

    Raises:
        LabError: as `lab.images.sources.Sources.take` and `take_from_box`.
        NotFound: klab has no own build of an image.
        RootNeeded: own builds are not here yet, and klab does not run as root.
        BoxError, HostError: they cannot be built.
        Interrupted: on Ctrl-C.
    """
    if wanted.own_build:
        return _own_builds(home, wanted, note)
    store = Store(home)
    sources = Sources(store, note, mirrors or {}, ask_again=wanted.ask_again)
    with interruptible("stopped while fetching; no node was changed", _CONTINUES):
        if wanted.box is not None:
            if wanted.name is not None:
                raise UsageError("--name is for a file or folder", hint="an image of a box keeps its name")
            references = [_reference(word) for word in wanted.words]
            return [LabImage.of(each, store) for each in sources.take_from_box(_box(home, wanted.box), references)]
        found = sources.take(
            [parse_source(word) for word in wanted.words], _reference(wanted.name) if wanted.name else None
        )
        return [LabImage.of(each, store) for each in found]


def _own_builds(home: Home, wanted: Wanted, note: Note) -> list[LabImage]:
    if wanted.box is not None or wanted.name is not None:
        raise UsageError("--own-build builds images by their names", hint="leave --box and --name out")
    references = list(dict.fromkeys(_reference(word) for word in wanted.words))
    known = own_builds()
    for each in references:
        if each.name not in known:
            close = did_you_mean(each.name, list(known))
            raise NotFound(f"klab has no own build of {each.name}", hint=f"it has: {', '.join(known)}{close}")
        if each.digest:
            raise UsageError(f"an own build has another digest than {each}", hint="name it by a tag")
    store = Store(home)
    kept = {} if wanted.ask_again else _kept_own_builds(store, references)
    missing = [each for each in references if each not in kept]
    with interruptible("stopped while images were built; no node was changed", _CONTINUES):
        made = {each.reference: each for each in _built(home, missing, note)} if missing else {}
    return [LabImage.of(image, store) for each in references if (image := made.get(each) or kept.get(each))]


def _kept_own_builds(store: Store, references: Iterable[Reference]) -> dict[Reference, Image]:
    found = {each: store.find(each) for each in references}
    return {each: image for each, image in found.items() if image is not None and store.is_own_build(image)}


def _built(home: Home, references: Sequence[Reference], note: Note) -> list[Image]:
    try:
        return take_own_builds(home, references, load_recipe(DEFAULT_BOX, DEFAULT), note)
    except RootNeeded as error:
        names = tuple(map(str, references))
        raise RootNeeded(
            "images that klab builds itself are not on this machine yet, and building them needs root",
            details=names,
            hint=(Remedy("image fetch", options=("--own-build", *names)), " builds them, and asks for your password"),
        ) from error


def _reference(word: str) -> Reference:
    try:
        return parse_reference(word)
    except ValueError as error:
        raise UsageError(str(error), hint="such as nginx:1.29 or ghcr.io/team/app:1.0") from None


def _box(home: Home, which: str) -> Box:
    found = [
        box
        for box in list_boxes(home)
        if which in {box.name, box.folder.name} or (len(which) > 3 and box.digest.startswith(which))
    ]
    if not found:
        raise NotFound(f"there is no box {which!r}", hint=(Remedy("box list"), " lists the boxes"))
    return found[0]


def refuse_unfit(lab: Lab) -> None:
    """Make sure, before anything is fetched, that a lab's nodes can have images; errors as that of the act."""
    act.refuse_unfit(lab)


def load(lab: Lab, images: Sequence[LabImage], *, listener: Listener | None = None) -> Loaded:
    """Bring images that were fetched to every node of a lab, and all others of its list to nodes that lack them.

    Args:
        lab: a lab that `lab.app.labs` has entered.
        images: what `fetch` has returned; none where the nodes shall only get what they lack.
        listener: told each event.

    Raises:
        LabError: as `lab.cluster.acts.images.load`.
        Interrupted: on Ctrl-C.
    """
    watched = lab.watched_by(listener)
    with interruptible("stopped half-way; what the nodes have got stays there", _CONTINUES):
        return act.load(watched, images)


def listed(lab: Lab) -> list[Listed]:
    """The images that klab has brought to a lab, which was entered, and which of its nodes have them."""
    images = images_of(lab.folder)
    seen = act.look(lab, images) if images else {}
    return [
        Listed(image, {node: None if has is None else image.ref in has for node, has in seen.items()})
        for image in images
    ]


def remove(lab: Lab, words: Sequence[str], *, listener: Listener | None = None) -> list[LabImage]:
    """Take images off a lab, which was entered; those of its box, which klab has not brought, stay.

    Raises:
        NotFound: klab has not brought one of them.
        LabError: as `lab.cluster.acts.images.remove`.
    """
    gone = act.chosen(images_of(lab.folder), words, lab.name)
    boxed = _boxed(lab.home, lab.plan, lab.record.box)
    of_box = [each.ref for each in gone if boxed.get(each.reference) in {f"sha256:{one}" for one in each.revisions}]
    with interruptible("stopped half-way", "run the same command again to continue"):
        act.remove(lab.watched_by(listener), gone, of_box)
    return gone


def kept(home: Home) -> list[Kept]:
    """The images that this machine keeps, by name."""
    store, labs = Store(home), _of_labs(home)
    found = []
    for reference, digest in sorted(store.names().items()):
        image = store.whole(reference, digest)
        users = [name for name, images in labs.items() if any(each.ref == str(reference) for each in images)]
        own = image is not None and store.is_own_build(image)
        found.append(Kept(str(reference), f"sha256:{digest}", image.size if image else 0, tuple(users), own))
    return found


def prune(home: Home) -> tuple[list[str], int]:
    """Remove the images of which no lab has the name, and blobs that nothing needs; returns names and bytes.

    Raises:
        LabError: the list of a lab's images is damaged: what it needs is then not known.
    """
    store = Store(home)
    if not store.folder.is_dir():
        return [], 0
    with store.lock():
        labs = _of_labs(home)
        used = {each.ref for images in labs.values() for each in images}
        gone = [reference for reference in store.names() if str(reference) not in used]
        needed = {digest for images in labs.values() for each in images for digest in each.files}
        return sorted(map(str, gone)), store.remove(gone, needed)


def _of_labs(home: Home) -> dict[str, tuple[LabImage, ...]]:
    return {folder.name: images_of(folder) for folder in home.existing()}


# --- what a plan, or a manifest, asks for --------------------------------------------------------------


def missing_here(home: Home, plan: Plan) -> list[str]:
    """The images of a plan that neither its box nor this machine has, so that they have to be fetched."""
    boxed, store = _boxed(home, plan), Store(home)
    wanted = map(parse_reference, plan.images)
    return [str(each) for each in wanted if not box_has(boxed, each) and store.find(each) is None]


def for_create(home: Home, plan: Plan, have: Iterable[LabImage], note: Note) -> list[LabImage]:
    """What a lab that is to be created shall have beside its box's images, on this machine by then; errors as `fetch`.

    Args:
        home: klab's folder.
        plan: the lab.
        have: what is on its list already; these stay as they are, whatever a tag stands for now.
        note: told of progress.
    """
    if not plan.images:
        return []
    there, boxed = {each.ref for each in have}, _boxed(home, plan)
    wanted = [each for each in map(parse_reference, plan.images) if str(each) not in there and not box_has(boxed, each)]
    return fetch(home, Wanted(tuple(map(str, wanted))), mirrors=dict(plan.mirrors), note=note) if wanted else []


def _boxed(home: Home, plan: Plan, folder: str = "") -> Mapping[Reference, str]:
    return images_of_box(home, plan.box, plan.box_kubernetes, folder)


def check(
    names: Sequence[str], *, home: Home, lab: Lab | None = None, ask: bool = True, note: Note = silent
) -> Checked:
    """Tell of each image in manifests whether a lab, or without one the usual box, has it, and where it can be had.

    Args:
        names: files, folders, or "-" for standard input.
        home: klab's folder.
        lab: the lab; its nodes are not asked.
        ask: ask registries for what is neither in the lab nor on this machine.
        note: told of progress.

    Raises:
        LabError: as `lab.scenario.manifest_files.load_manifests`.
    """
    manifests = load_manifests(names)
    uses: dict[Reference | str, list[tuple[str, bool, str]]] = {}
    for file, objects in manifests.objects.items():
        for use in images_of_objects(objects):
            key = use.reference if use.reference is not None else use.text
            uses.setdefault(key, []).append((f"{file}: {use.at}", use.never, use.problem))
    references = [each for each in uses if isinstance(each, Reference)]
    places = _places(references, home, lab, ask=ask, note=note)
    images, buildable = [], own_builds()
    for key, at in uses.items():
        place, why = places[key] if isinstance(key, Reference) else ("invalid", at[0][2])
        never = tuple(where for where, refuses, _ in at if refuses)
        own = place == "nowhere" and isinstance(key, Reference) and not key.digest and key.name in buildable
        images.append(Asked(str(key), place, why, tuple(where for where, _, _ in at), never, own))
    box = lab.record.box if lab is not None else f"{DEFAULT_BOX}, Kubernetes {DEFAULT}"
    return Checked(tuple(images), manifests.left_out, box)


def _places(
    references: Sequence[Reference], home: Home, lab: Lab | None, *, ask: bool, note: Note
) -> dict[Reference, tuple[Place, str]]:
    if lab is not None:
        boxed, own, mirrors = _boxed(home, lab.plan, lab.record.box), images_of(lab.folder), dict(lab.plan.mirrors)
    else:
        version = load_catalog().full_version(DEFAULT)
        boxed, own, mirrors = images_of_box(home, DEFAULT_BOX, version), (), {}
    store = Store(home)
    found: dict[Reference, tuple[Place, str]] = {}
    for each in references:
        if any(image.serves(each) for image in own):
            found[each] = ("lab", "")
        elif box_has(boxed, each):
            found[each] = ("box", "")
        elif store.find(each) is not None:
            found[each] = ("machine", "")
    left = [each for each in references if each not in found]
    if not ask:
        return found | dict.fromkeys(left, ("nowhere", "no registry was asked"))
    if left:
        note(f"asking registries for {len(left)} images")
    with interruptible("stopped while registries were asked", "--offline asks none"):
        answers = Sources(store, silent, mirrors).obstacles(left) if left else {}
    return found | {each: ("nowhere" if why else "registry", why) for each, why in answers.items()}


def loadable(checked: Checked) -> list[str]:
    """The images that the lab lacks and that can be had."""
    return [each.image for each in checked.images if each.place in TO_BE_HAD]


def buildable(checked: Checked) -> list[str]:
    """The images that are nowhere to be had, and of which klab can build its own."""
    return [each.image for each in checked.images if each.own_build]
