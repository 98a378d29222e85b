"""Boxes that somebody else has built: in a bundle, or in a folder that was copied from another machine's store.

Such a box comes into the store with its `origin` and serves the labs of that bundle only, until a person trusts it:
`lab.boxes.incoming`. A lock that names its disk stands for that, since it comes from whoever built the box.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.boxes.incoming import put, trust
from lab.boxes.lock import Lock
from lab.boxes.manifest import DISK, MANIFEST, Box, BoxFile, facts, read_box
from lab.boxes.store import list_boxes
from lab.bundles.file import BundleFile, OnBytes, open_bundle
from lab.bundles.format import SUFFIX, box_member
from lab.bundles.signature import Signer, allowed_signer, default_allowed, signer
from lab.errors import BoxError, Conflict, HostError, LabError, NotFound, Remedy, UsageError
from lab.store import Home
from lab.text import visible

GIB = 1 << 30
_ANOTHER_FILE = "get it again; compare its size with the original's"


@dataclass(frozen=True, slots=True)
class Offer:
    """A box that can be taken: where it is, what it says of itself, and the bundle, None for a copied folder."""

    place: Path
    box: Box
    file: BundleFile | None = None

    def __str__(self) -> str:
        return f"{self.box.title} ({self.box.short}) in {visible(str(self.place))}"

    def fetch(self, name: str, target: Path, on_bytes: OnBytes = lambda _: None) -> None:
        """Write one of the box's files, unpacked.

        Raises:
            UsageError: it has changed since it was looked at.
            OSError: it cannot be read or written.
        """
        if self.file is not None:
            self.file.write(self.file.bundle.member(box_member(name)), target, on_bytes)
            return
        shutil.copyfile(self.place / name, target)

    def signer(self, home: Home) -> Signer | None:
        """Who signed it; None where it is not signed and need not be.

        Raises:
            UsageError: the signature does not match, or there is a list of allowed signers and none of them signed it.
        """
        manifest, signature = (self.file.manifest, self.file.signature) if self.file else (b"", b"")
        allowed = default_allowed(home.root)
        if allowed is not None:
            return allowed_signer(manifest, signature, allowed)
        return signer(manifest, signature) if signature else None


def box_in(file: BundleFile) -> Box:
    """The box in a bundle, as the store will have it; its folder and dates do not count."""
    part, disk = file.bundle.box, file.bundle.member(box_member(DISK))
    files = {DISK: BoxFile(disk.content, 0, part.digest)}
    return Box(**facts(part), folder=file.path.parent, files=files, origin=file.bundle.name)


# --- which box ----------------------------------------------------------------------------------------


def offers(place: Path, tell: Callable[[str], None]) -> list[Offer]:
    """The boxes at a place: a bundle, a box's folder, or a folder with such files and folders.

    Args:
        place: the file or folder.
        tell: told why a file in a folder cannot be used.

    Raises:
        NotFound: there is none.
        UsageError, BoxError: the bundle or the box is damaged, or has no disk in it.
        HostError: the place cannot be read.
    """
    try:
        if not place.is_dir():
            return [_of_bundle(place)]
        if (place / MANIFEST).is_file():
            return [_of_folder(place)]
        likely = [each for each in sorted(place.iterdir()) if each.suffix == SUFFIX or (each / MANIFEST).is_file()]
    except OSError as error:
        raise HostError(
            f"{visible(str(place))} cannot be read",
            details=[error.strerror or str(error)],
            hint="change its permissions, or name a copy; a stick has to be mounted",
        ) from error
    found = []
    for each in likely:
        try:
            found += offers(each, tell)
        except LabError as error:
            tell(": ".join((f"{visible(each.name)} cannot be used", error.message, *error.details)))
    if not found:
        raise NotFound(f"there is no bundle with a box in {visible(str(place))}, and no copied box", hint=_HOW_TO_GET)
    return found


_HOW_TO_GET = (Remedy("export"), " writes a bundle; boxes lie in KLAB_HOME/boxes and may be copied from there")


def _of_bundle(place: Path) -> Offer:
    file = open_bundle(place)
    if not file.bundle.with_box:
        raise UsageError(
            f"the bundle {file.bundle.name} was written without its box",
            hint=("ask for one that has it: ", Remedy("export"), " leaves it out only with --without-box"),
        )
    return Offer(place, box_in(file), file)


def _of_folder(place: Path) -> Offer:
    box = read_box(place)
    if why := _problem(place, box):
        raise BoxError(f"the box in {visible(str(place))} is damaged", details=[why], hint=_ANOTHER_FILE)
    origin = visible(place.resolve().name or str(place))  # never empty: that is a box which was built here
    return Offer(place, replace(box, files={DISK: box.files[DISK]}, origin=origin, made_from=None))


def _problem(place: Path, box: Box) -> str:
    """What shows at once that a copied box is not whole; empty for nothing."""
    known, disk = box.files.get(DISK), place / DISK
    if known is None or known.sha256 != box.digest:
        return f"{MANIFEST}: its digest is not that of {DISK}"
    if not disk.is_file():
        return f"{DISK}: missing, or not a regular file"
    size = disk.stat().st_size
    return f"{DISK}: {size} bytes instead of {known.size}" if size != known.size else ""


def choose(found: Sequence[Offer], recipe: str | None, kubernetes: str | None, lock: Lock | None) -> Offer:
    """The box that is wanted, of those at a place.

    Args:
        found: all of them.
        recipe: the name that it must have; None for any.
        kubernetes: the version that it must have; None for any.
        lock: what it must be.

    Raises:
        Conflict: none of them is the one, or several are.
        UsageError: the lock is an older klab's and does not name a disk.
        BoxError: none has the lock's disk.
    """
    fitting = [
        offer for offer in found if recipe in {None, offer.box.recipe} and kubernetes in {None, offer.box.kubernetes}
    ]
    if not fitting:
        wanted = (f" {recipe}" if recipe else "") + (f" with Kubernetes {kubernetes}" if kubernetes else "")
        raise Conflict(
            f"there is no box{wanted} there",
            details=[f"there is {offer}" for offer in found],
            hint="leave out name and version, or name another bundle",
        )
    if lock is not None:
        fitting = _locked(fitting, lock)
    if len({offer.box.digest for offer in fitting}) > 1:
        raise Conflict(
            f"there are {len(fitting)} boxes there",
            details=[str(offer) for offer in fitting],
            hint="choose by name and --kubernetes, or let --bundle name one of them",
        )
    return fitting[0]


def _locked(found: Sequence[Offer], lock: Lock) -> list[Offer]:
    if not lock.disk:
        raise UsageError(
            "the lock does not name the box's disk, so that no bundle can be held to it",
            hint=(Remedy("box lock"), " writes one that does, on the machine where the box was built"),
        )
    same = [offer for offer in found if offer.box.digest == lock.disk]
    if not same:
        raise BoxError(
            "the box is not the one in the lock",
            details=[f"in the lock: {lock.disk}", *(f"in {visible(str(o.place))}: {o.box.digest}" for o in found)],
            hint="the bundle or the lock is of another build: get both from the same person",
        )
    return same


# --- taking it ----------------------------------------------------------------------------------------


def take(home: Home, offer: Offer, lock: Lock | None, tell: Callable[[str], None]) -> Box:
    """Put a box into the store, unless it is there. While another build is running it waits.

    Args:
        home: klab's folder.
        offer: the box.
        lock: what the box was found to be; it is trusted then.
        tell: told each step as it begins.

    Raises:
        HostError: there is no room.
        UsageError, BoxError: it is damaged, or is not what it says.
    """
    if all(box.digest != offer.box.digest for box in list_boxes(home)):
        _refuse_no_room(home, offer)
        tell("taking the disk, and comparing it with its digest")
    made = put(home, offer.box, offer.fetch, tell)
    return trust(home, made, lock.made_from) if lock and made.origin else made


def _refuse_no_room(home: Home, offer: Offer) -> None:
    place = next(each for each in (home.boxes, *home.boxes.parents) if each.exists())
    free = shutil.disk_usage(place).free
    needed = 2 * offer.box.files[DISK].size  # Vagrant needs a second copy of it
    if needed > free:
        raise HostError(
            f"the box needs {needed / GIB:.1f} GiB of free disk, {home.root} has {free / GIB:.1f}",
            hint=(Remedy("box prune"), ", or set KLAB_HOME to a folder on a larger disk"),
        )
