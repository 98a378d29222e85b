"""Build, find, verify and remove boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.boxes import incoming, removal
from lab.boxes import lock as locks
from lab.boxes.contents import Difference, compare_contents
from lab.boxes.host import given_back, make_home
from lab.boxes.manifest import CONTENTS, Box
from lab.boxes.store import damaged_boxes, ensure_vmdk, list_boxes
from lab.boxes.store import verify as verify_box
from lab.components.kubernetes import DEFAULT
from lab.components.kubernetes.sources import AUTO, BUNDLE
from lab.errors import BoxError, Conflict, NotFound, Remedy, UsageError
from lab.files import write_outside
from lab.scenario.catalog import Catalog, load_catalog
from lab.store import Home

if TYPE_CHECKING:
    from lab.bundles.signature import Signer

SHORTEST_DIGEST = 4  # characters
DEFAULT_BOX = "debian-13"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A box as it was before a rebuild, whether the new disk is the same, and the files that differ."""

    before: Box
    same_disk: bool
    differences: list[Difference]


@dataclass(frozen=True, slots=True)
class Taken:
    """Where a box was taken from that somebody else built, and who signed it; None for nobody."""

    place: Path
    signer: Signer | None


@dataclass(frozen=True, slots=True)
class Built:
    """A box, how it compares with the one before where it was built again, and where it was taken from, if so."""

    box: Box
    rebuilt: Rebuilt | None = None
    taken: Taken | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """A box that was checked, None where its manifest cannot be read; what is damaged, None where it is whole."""

    box: Box | None
    error: BoxError | None


def build(
    home: Home,
    name: str | None = None,
    kubernetes: str | None = None,
    *,
    rebuild: bool = False,
    vmdk: bool = False,
    source: str = AUTO,
    mirrors: Sequence[str] = (),
    bundle: Path | None = None,
    locked: Path | None = None,
    image: Path | None = None,
    tell: Callable[[str], None],
) -> Built:
    """Build a box, find the one that equal inputs made before, or take the one in a bundle.

    Args:
        home: klab's folder.
        name: the recipe; the lock's, the bundle's or DEFAULT_BOX when left out.
        kubernetes: the version, with or without "v" and patch; the lock's, the bundle's or a scenario's default when
            left out.
        rebuild: take every step again, and compare the result with the box from the same source before.
        vmdk: make the disk for VirtualBox as well.
        source: where Kubernetes comes from, one of `lab.components.kubernetes.sources`.
        mirrors: other addresses of what upstream publishes, see `lab.boxes.upstream.addresses`.
        bundle: where the box is taken from, see `lab.bundles.boxes.offers`.
        locked: the file of a lock that the box must meet.
        image: the cloud image that the box is made of, see `lab.boxes.cloud_image`.
        tell: told each step as it begins.

    Raises:
        UsageError: what is asked for contradicts itself.
        Conflict: name or version are other than the lock's or the bundle's.
        RootNeeded, BoxError and others: as `lab.boxes.build.build_box` and `lab.boxes.cloud_image.make_box`.
    """
    from lab.boxes import build as building  # half of the time that `klab box list` would take

    _refuse_contradiction(source, bundle, mirrors, rebuild=rebuild)
    catalog = load_catalog()
    if bundle is not None and image is not None:
        raise UsageError("--bundle and --image are different sources", hint="leave out one of the two")
    if bundle is None and (image is not None or name in catalog.images):
        _refuse_with_image(kubernetes, source, mirrors, locked, rebuild=rebuild)
        return _of_image(home, catalog, name or "", image, vmdk=vmdk, tell=tell)
    lock = locks.read_lock(locked) if locked else None
    version = catalog.full_version(kubernetes.removeprefix("v")) if kubernetes else None
    if lock is not None:
        if (name or lock.box, version or lock.kubernetes) != (lock.box, lock.kubernetes):
            raise Conflict(
                f"the lock is of {lock.box} with Kubernetes {lock.kubernetes}", hint="leave out name and version"
            )
        name, version = lock.box, lock.kubernetes
    if bundle is not None:
        return _take(home, bundle, name, version, lock, vmdk=vmdk, tell=tell)
    name, version = name or DEFAULT_BOX, version or catalog.full_version(DEFAULT)
    before = [b for b in list_boxes(home) if (b.recipe, b.kubernetes) == (name, version) and not b.origin]
    built = building.build_box(
        home, catalog, name, version, tell, rebuild=rebuild, source=source, mirrors=mirrors, lock=lock
    )
    if vmdk:
        tell("disk for VirtualBox")
        with given_back(home):
            built = ensure_vmdk(home, built)
    alike = [each for each in before if each.source == built.source and CONTENTS in each.files]
    return Built(built, _compared(alike[0], built) if rebuild and alike else None)


def _refuse_contradiction(source: str, bundle: Path | None, mirrors: Sequence[str], *, rebuild: bool) -> None:
    if bundle is None:
        if source == BUNDLE:
            raise UsageError("--source bundle needs a bundle", hint="give --bundle PLACE as well")
        return
    if source not in {AUTO, BUNDLE}:
        raise UsageError(f"--source {source} takes nothing from a bundle", hint="leave out --bundle, or --source")
    if mirrors:
        raise UsageError("--bundle and --mirror are different sources", hint="leave out one of the two")
    if rebuild:
        raise UsageError("a bundle's box is taken as it is; --rebuild repeats a build", hint="leave out one of the two")


def _refuse_with_image(
    kubernetes: str | None, source: str, mirrors: Sequence[str], locked: Path | None, *, rebuild: bool
) -> None:
    given = {
        "--kubernetes": kubernetes,
        "--source": source != AUTO,
        "--mirror": mirrors,
        "--locked": locked,
        "--rebuild": rebuild,
    }
    if wrong := [option for option, value in given.items() if value]:
        raise UsageError(
            f"a cloud image is taken as it is: there is nothing of Kubernetes in it for {' and '.join(wrong)}",
            hint=f"leave out {' and '.join(wrong)}; a box with Kubernetes is {DEFAULT_BOX}",
        )


def _of_image(
    home: Home, catalog: Catalog, name: str, image: Path | None, *, vmdk: bool, tell: Callable[[str], None]
) -> Built:
    from lab.boxes import cloud_image

    if name not in catalog.images:
        raise cloud_image.no_image_box(name, catalog)
    if image is None:
        raise cloud_image.without_file(name, catalog.images[name])
    make_home(home.root)
    with given_back(home):
        box = cloud_image.make_box(home, name, catalog.images[name], image, tell)
        if vmdk:
            tell("disk for VirtualBox")
            box = ensure_vmdk(home, box)
    return Built(box)


def _take(
    home: Home,
    place: Path,
    name: str | None,
    kubernetes: str | None,
    lock: locks.Lock | None,
    *,
    vmdk: bool,
    tell: Callable[[str], None],
) -> Built:
    from lab.bundles import boxes as others

    offer = others.choose(others.offers(place, tell), name, kubernetes, lock)
    signer = offer.signer(home)
    tell(f"bundle: {offer}, {f'signed with {signer}' if signer else 'not signed'}")
    make_home(home.root)
    with given_back(home):
        box = others.take(home, offer, lock, tell)
        if vmdk:
            tell("disk for VirtualBox")
            box = ensure_vmdk(home, box)
    return Built(box, taken=Taken(offer.place, signer))


def lock(home: Home, name: str | None = None) -> locks.Lock:
    """The lock of a box: every program and image that it was made from, with its digest.

    Args:
        home: klab's folder.
        name: as in `pick`; the newest box built here when left out.

    Raises:
        NotFound: there is no box.
        Conflict: there are several of that name, or it was not written down what it was made from.
    """
    if name is not None:
        return locks.lock_of(pick(home, name))
    for box in list_boxes(home):
        if not box.origin and box.kubernetes:
            return locks.lock_of(box)
    raise NotFound("no box has been built here", hint=Remedy("box build"))


def write_lock(lock: locks.Lock, file: Path | None = None) -> Path:
    """Write a lock into a file, in place of one that is there; returns the file.

    Raises:
        UsageError: something else is there.
    """
    target = file or Path(f"{lock.box}-k8s-{lock.kubernetes}{locks.SUFFIX}")
    write_outside(target, locks.lock_text(lock), mode=0o644)
    return target


def _compared(before: Box, after: Box) -> Rebuilt:
    differences = compare_contents(before.contents.read_text(), after.contents.read_text())
    return Rebuilt(before, before.digest == after.digest, list(differences))


def pick(home: Home, name: str) -> Box:
    """The box with this name, or with a digest that begins with it.

    Raises:
        NotFound: no box has this name or digest.
        Conflict: there are several.
    """
    boxes = list_boxes(home)
    found = [b for b in boxes if b.name == name or (len(name) >= SHORTEST_DIGEST and b.digest.startswith(name))]
    if not found:
        have = ", ".join(f"{b.name} ({b.short})" for b in boxes)
        raise NotFound(f"there is no box {name!r} here", hint=f"built here: {have}" if have else Remedy("box build"))
    if len(found) > 1:
        raise Conflict(
            f"there are {len(found)} boxes called {name}",
            details=[b.short for b in found],
            hint="give the digest of the one that you mean",
        )
    return found[0]


def trust(home: Home, name: str) -> Box:
    """Let a box that came with a checkpoint serve every lab on this machine; errors as `pick`."""
    return incoming.trust(home, pick(home, name))


def remove(home: Home, name: str) -> Box:
    """Remove a box; errors as `pick`, and Conflict where a lab needs it."""
    box = pick(home, name)
    removal.remove(home, box)
    return box


def prune(home: Home) -> list[str]:
    """Remove the boxes that no lab needs and something newer replaces; returns what was removed."""
    return removal.prune(home)


def listing(home: Home) -> tuple[list[Box], list[BoxError]]:
    """The boxes on this machine, newest first, and an error for each that is damaged."""
    return list_boxes(home), damaged_boxes(home)


def verify(home: Home, name: str | None = None) -> Iterator[Verified]:
    """Check every byte of a box, or of all boxes.

    Raises:
        NotFound, Conflict: as `pick`.
    """
    yield from (Verified(None, error) for error in ([] if name else damaged_boxes(home)))
    for box in [pick(home, name)] if name else list_boxes(home):
        try:
            verify_box(home, box)
        except BoxError as error:
            yield Verified(box, error)
        else:
            yield Verified(box, None)
