"""Bring images into the registries of a lab's nodes, look what they have, and remove them.

    load:   write down -> on each node: look -> send what it lacks, piece by piece -> check, place, name
    remove: on each node -> write down

The lab's list of images comes first, so that after a failure or a kill the same command, or the next node that joins,
finds what there is to bring. What a node has of a blob, even a part, is not sent again.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.cluster.acts.on_node import ROOT_SHELL, failure, refuse_off
from lab.cluster.events import Journal
from lab.cluster.lab import Lab
from lab.cluster.progress import Progress
from lab.cluster.wait.watch import Watch
from lab.errors import Conflict, ImageError, LabError, NotFound, Remedy
from lab.images import record
from lab.images.record import LabImage
from lab.images.store import Store, remedy_load
from lab.machines.protocol import Machines, NodeState
from lab.plan.model import Plan
from lab.render import images as scripts
from lab.render.images import Seen
from lab.scenario.references import parse_reference
from lab.store import Home, Record
from lab.waiting import map_parallel, outcomes

PHASE = "images"
# Each is a login, and a Ctrl-C waits for one.
PIECE = 32 << 20
_MOST_PIECES = 200  # in one script
_LOOK_SECONDS = 120.0
# In the node's own time, for one piece; and for the digests of everything.
_RECEIVE_SECONDS = 900.0
_PLACE_SECONDS = 1800.0
# Side by side each would only be slower: the host's cores are what they share.
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load ended with: the images, the nodes that lacked something, the bytes that were sent, and seconds."""

    images: tuple[LabImage, ...]
    nodes: tuple[str, ...]
    sent: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Crew:
    """What it takes to work on nodes that run: their lab, under its lock, and the way to them."""

    home: Home
    plan: Plan
    record: Record
    machines: Machines
    journal: Journal

    @classmethod
    def of(cls, lab: Lab, record: Record) -> Crew:
        return cls(lab.home, lab.plan, record, lab.machines(record), lab.journal())

    def limit(self, seconds: float) -> float:
        """Seconds by the host's clock that are so many of the guests'."""
        return self.record.guest_clock.host_seconds(seconds)

    def run(self, node: str, command: Sequence[str], seconds: float, stdin: str | Path | None = None) -> list[str]:
        """What was seen of a command's failure on a node; nothing where it succeeded."""
        return failure(self.machines, node, command, self.limit(seconds), stdin)


def refuse_unfit(lab: Lab) -> Record:
    """Make sure that a lab's nodes can have images, whether they run or not; returns its record.

    Raises:
        Conflict: it is half made or half destroyed, or its nodes are plain machines.
    """
    found = lab.finished()
    if lab.plan.bootstrap == "none":
        raise Conflict(
            f"the nodes of lab {lab.name!r} are plain machines: no registry runs on them",
            hint="the lesson installs what it needs; scp brings a file there",
        )
    return found


def load(lab: Lab, images: Sequence[LabImage]) -> Loaded:
    """Bring images, which this machine keeps, to every node of a lab, and all that it had before to those that lack it.

    Raises:
        Conflict: another klab works on the lab, it is half made, or not all of its machines run.
        ImageError: a node has no room, does not take an image, or this machine does not keep it any more.
        MachineError: a node does not answer.
    """
    with lab.folder.lock():
        crew = Crew.of(lab, refuse_unfit(lab))
        _refuse_off(crew)
        before = record.images_of(lab.folder)
        wanted = record.add(lab.folder, images)
        names = [node.name for node in lab.plan.nodes]
        done = bring(crew, wanted, names)
        # A tag that has moved: else what it stood for would be there again once the image is removed.
        _take_away(crew, names, [image for image in before if image not in wanted], wanted)
        return done


def bring(crew: Crew, images: Sequence[LabImage], nodes: Sequence[str]) -> Loaded:
    """Bring images to nodes that run, where they lack them; errors as `load`."""
    began, stop = time.monotonic(), threading.Event()
    sent = dict.fromkeys(nodes, 0)
    if images:
        sent = map_parallel(
            lambda name: _Delivery(crew, images, name, stop).run(),
            list(nodes),
            most=_AT_ONCE,
            give_up=True,
            stop=stop.set,
        )
    touched = tuple(name for name, count in sent.items() if count)
    return Loaded(tuple(images), touched, sum(sent.values()), time.monotonic() - began)


def bring_untimed(crew: Crew, images: Sequence[LabImage], nodes: Sequence[str], watch: Watch, lab: Lab) -> None:
    """As `bring`, where an act waits for Ready: gigabytes over a slow line do not count against that time."""
    left = watch.deadline.left
    bring(crew, images, nodes)
    watch.deadline = lab.deadline_after(left)


def remove(lab: Lab, gone: Sequence[LabImage], of_box: Sequence[str] = ()) -> None:
    """Take images out of the registries and stores of a lab's nodes, and off its list.

    Args:
        lab: the lab.
        gone: images on its list.
        of_box: those of them, by name, that the box has just so; they stay on the nodes.

    Raises:
        As `load`.
    """
    with lab.folder.lock():
        crew = Crew.of(lab, refuse_unfit(lab))
        _refuse_off(crew)
        names = {image.ref for image in gone}
        kept = [image for image in record.images_of(lab.folder) if image.ref not in names]
        nodes = [node.name for node in lab.plan.nodes]
        _take_away(crew, nodes, [image for image in gone if image.ref not in of_box], kept)
        record.keep(lab.folder, kept)


def _take_away(crew: Crew, nodes: Sequence[str], gone: Sequence[LabImage], kept: Sequence[LabImage]) -> None:
    if not gone:
        return
    script = scripts.render_remove(crew.plan, [image.on_node for image in gone], [image.on_node for image in kept])

    def take(name: str) -> None:
        if seen := crew.run(name, ROOT_SHELL, _PLACE_SECONDS, script):
            raise _failed(name, "does not let the images go", seen)

    map_parallel(take, list(nodes), most=_AT_ONCE)


def look(lab: Lab, images: Sequence[LabImage]) -> dict[str, frozenset[str] | None]:
    """Which of these images each node has, by name; None for a node that is off or does not answer."""
    crew = Crew.of(lab, lab.record)
    states = crew.machines.states()

    def ask(name: str) -> frozenset[str] | None:
        if states.get(name) != NodeState.RUNNING:
            return None
        seen = _seen(crew, images, name)
        return frozenset(
            each.ref for each in images if each.ref in seen.named and not set(each.files) & seen.lacks.keys()
        )

    found = outcomes(ask, [node.name for node in lab.plan.nodes])
    return {name: None if isinstance(each, LabError) else each for name, each in found.items()}


def _refuse_off(crew: Crew) -> None:
    refuse_off(crew.machines, crew.plan.name, "; what was fetched is kept on this machine")


def _seen(crew: Crew, images: Sequence[LabImage], name: str) -> Seen:
    script = scripts.render_look([image.on_node for image in images])
    done = crew.machines.ssh(name, list(ROOT_SHELL), crew.limit(_LOOK_SECONDS), check=False, stdin=script)
    found = scripts.parse_seen(done.stdout) if done.code == 0 else None
    if found is None:
        raise _failed(name, "has no registry that images could be brought to", done.tail)
    return found


def _failed(name: str, what: str, seen: Sequence[str]) -> ImageError:
    return ImageError(
        f"{name} {what}",
        details=seen,
        hint=(Remedy("ssh", node=name), " shows the node; run the same command again to continue"),
    )


class _Delivery:
    """Images on their way to one node."""

    def __init__(self, crew: Crew, images: Sequence[LabImage], name: str, stop: threading.Event) -> None:
        self._crew, self._images, self._name, self._stop = crew, images, name, stop
        self._store = Store(crew.home)
        self._sizes = {digest: size for image in images for digest, size in image.files.items()}

    def run(self) -> int:
        """Bring them; returns the bytes that were sent, at least 1 where anything was changed."""
        seen = _seen(self._crew, self._images, self._name)
        if not seen.lacks and all(image.ref in seen.named for image in self._images):
            return 0
        with self._crew.journal.span(self._name, PHASE):
            sent = self._send(seen)
            script = scripts.render_place(self._crew.plan, [image.on_node for image in self._images])
            if told := self._crew.run(self._name, ROOT_SHELL, _PLACE_SECONDS, script):
                raise _failed(self._name, "does not take the images", told)
        return max(1, sent)

    def _send(self, seen: Seen) -> int:
        begun = {d: come if come <= self._sizes[d] else 0 for d, come in seen.lacks.items() if d in self._sizes}
        total = sum(self._sizes[digest] - come for digest, come in begun.items())
        if total > seen.free:
            raise ImageError(
                f"{self._name} has no room for the images",
                details=[f"{total >> 20} MiB are to come, {seen.free >> 20} MiB are free"],
                hint=(
                    Remedy("image rm", options=("IMAGE",)),
                    " removes what the lesson does not need; disk in the scenario makes larger nodes",
                ),
            )
        self._refuse_missing(begun)
        progress = Progress(self._crew.journal.tell, self._name, PHASE, total)
        for pieces in self._parcels(begun):
            if self._stop.is_set():
                raise ImageError("stopped", hint=remedy_load(self._crew.plan.name))
            self._post(pieces)
            progress(sum(size for _, _, size in pieces))
        return total

    def _refuse_missing(self, digests: Collection[str]) -> None:
        """Make sure that this machine keeps what is to be sent."""
        for image in self._images:
            if lost := [d for d in image.files if d in digests and not self._is_here(d)]:
                raise ImageError(
                    f"this machine no longer keeps the image {image.ref}",
                    details=[f"{self._store.folder} lacks sha256:{lost[0]}"],
                    hint=(remedy_load(self._crew.plan.name, image.ref), " fetches it again"),
                )

    def _is_here(self, digest: str) -> bool:
        try:
            return (self._store.blobs / digest).stat().st_size == self._sizes[digest]
        except OSError:
            return False

    def _parcels(self, begun: dict[str, int]) -> Iterator[list[tuple[str, int, int]]]:
        """Parts of blobs, as digest, offset and size, put together for one login each."""
        parcel: list[tuple[str, int, int]] = []
        room = PIECE
        for digest, come in begun.items():
            while come < self._sizes[digest]:
                size = min(room, self._sizes[digest] - come)
                parcel.append((digest, come, size))
                come, room = come + size, room - size
                if not room or len(parcel) == _MOST_PIECES:
                    yield parcel
                    parcel, room = [], PIECE
        if parcel:
            yield parcel

    def _post(self, pieces: Sequence[tuple[str, int, int]]) -> None:
        # It has no name, so that a kill leaves nothing; the kernel has one for it (proc_pid_fd(5)).
        with tempfile.TemporaryFile(dir=self._store.folder) as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for digest, offset, size in pieces:
                    member = tarfile.TarInfo(scripts.piece_name(digest, offset))
                    member.size = size
                    with (self._store.blobs / digest).open("rb") as blob:
                        blob.seek(offset)
                        tar.addfile(member, io.BytesIO(blob.read(size)))
            file.flush()
            script = scripts.render_receive([(digest, offset) for digest, offset, _ in pieces])
            told = self._crew.run(
                self._name, ("sudo", "bash", "-c", script), _RECEIVE_SECONDS, Path(f"/proc/self/fd/{file.fileno()}")
            )
        if any("No space left" in line for line in told):
            raise ImageError(
                f"the disk of {self._name} is full",
                details=told,
                hint=(Remedy("image rm", options=("IMAGE",)), " removes images; then run the same command again"),
            )
        if told:
            raise _failed(self._name, "does not take the images", told)


def chosen(images: Sequence[LabImage], words: Sequence[str], lab: str) -> list[LabImage]:
    """The images on a lab's list that a person names.

    Raises:
        NotFound: one is not on it; the hint lists those that are.
    """
    found = []
    for word in words:
        try:
            reference = parse_reference(word)
        except ValueError:
            reference = None
        match = [each for each in images if reference is not None and each.reference == reference]
        if not match:
            there = ", ".join(each.ref for each in images)
            raise NotFound(
                f"klab has brought no image {word!r} to lab {lab!r}",
                hint=f"it has brought: {there}" if there else (remedy_load(lab, "IMAGE"), " brings one"),
            )
        found += match
    return list({each.ref: each for each in found}.values())
