"""Write a lab's disks, box and keys into one file from which the same lab can be made elsewhere.

The lab is off, or the disks are those of a snapshot. The lab is not changed, and the file gets its name only
when all of it is on disk: a failure or a kill leaves the file that had that name before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.boxes.incoming import PORTABLE
from lab.boxes.manifest import Box, build_command, facts
from lab.boxes.removal import kept_folder
from lab.boxes.store import box_of, check_box
from lab.boxes.upstream.layout import Blob
from lab.bundles import keys
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.format import SUFFIX, BoxPart, Bundle, Member, box_member, check_bundle_name, disk_member, image_member
from lab.bundles.writer import Sign, Writer, writing
from lab.cluster.lab import Lab
from lab.cluster.progress import Progress
from lab.errors import BoxError, Conflict, HostError, ImageError, LabError, Remedy, UsageError
from lab.files import refuse_special
from lab.images.record import images_of
from lab.images.store import Store, remedy_load
from lab.machines.captures import PartKind
from lab.machines.protocol import needed_disk_transfer
from lab.snapshots.commands import opened
from lab.snapshots.digest import file_problems
from lab.snapshots.freeze import shortage, versions
from lab.snapshots.kubernetes import plan_of
from lab.snapshots.manifest import Manifest
from lab.snapshots.session import Session, undoing
from lab.store import Home

READ_BLOCK = 1 << 22
_LEFT = "nothing of the bundle is left, and the lab has not been touched"


@dataclass(frozen=True, slots=True)
class Order:
    """What to write, and where.

    `snapshot` is the one whose disks are written; None for the lab as it is. `sign` makes the signature of a manifest.
    """

    name: str
    target: Path
    with_box: bool = True
    snapshot: Manifest | None = None
    sign: Sign | None = None

    @property
    def key(self) -> str | None:
        """The capture that holds the disks."""
        return None if self.snapshot is None else self.snapshot.id


def write_bundle(
    lab: Lab, name: str, target: Path, *, with_box: bool = True, replaces: bool = False, sign: Sign | None = None
) -> BundleFile:
    """Write a lab that is off into a file.

    Args:
        lab: the lab.
        name: the bundle's name.
        target: the file.
        with_box: put the box in, so that nothing but the file is needed.
        replaces: a file that is there already may be replaced.
        sign: makes the signature of a manifest, see `lab.bundles.signature`.

    Raises:
        UsageError: `name` is not a valid bundle name, the target is not a regular file, or the key cannot sign.
        Conflict: the file exists; a machine is not off; another klab works on the lab.
        BoxError: the box that the lab was created from is missing or damaged.
        HostError: there is no room, or this provider cannot do it.
        LabError: any other failure; nothing of the file is left then.
    """
    check_bundle_name(name)
    target = target.absolute()
    _refuse_target(target, replaces=replaces)
    if sign is not None:
        sign(b"")  # a key that cannot sign fails now, not after everything is packed
    with opened(lab) as session:
        _refuse_running(session)
        return _write(session, Order(name, target, with_box, sign=sign))


def keep_snapshots(lab: Lab) -> list[BundleFile]:
    """Write each snapshot that was taken by hand into a file in klab's home, without the box, which stays in the store.

    A file of the same snapshot that is there already is replaced.

    Raises:
        Conflict: there is no such snapshot, or one does not fit the lab as it is now, or is damaged.
        LabError: as `write_bundle`; the lab has not been touched.
    """
    with opened(lab) as session:
        manifests, damaged = session.snapshot_store.all()
        chosen = [manifest for manifest in manifests if not manifest.auto]
        if damaged:
            raise Conflict(
                f"not every snapshot of lab {session.lab.folder.name!r} can be kept",
                details=[f"{each.id}: {each.why}" for each in damaged],
                hint=(
                    Remedy("snapshot rm", lab=session.lab.folder.name, options=(damaged[0].id,)),
                    " removes the rest of it",
                ),
            )
        if not chosen:
            raise Conflict(
                f"lab {session.lab.folder.name!r} has no snapshot to keep",
                hint=(
                    Remedy("stop"),
                    " and ",
                    Remedy("export"),
                    " keep the lab as it is; without --keep-snapshots nothing is kept",
                ),
            )
        folder = kept_folder(session.lab.home, _box(session).folder.name)
        with undoing(lambda: "the lab has not been touched"):
            folder.mkdir(parents=True, exist_ok=True)
        return [_write(session, Order(m.name, _kept_target(folder, session, m), False, m)) for m in chosen]


def kept(home: Home) -> list[Path]:
    """The files that `keep_snapshots` has written, by name."""
    return sorted(home.checkpoints.glob(f"*/[!.]*{SUFFIX}"), key=lambda file: (file.name, str(file)))


def _kept_target(folder: Path, session: Session, manifest: Manifest) -> Path:
    """A file name that is free, or taken by the same snapshot."""
    stem = f"{session.lab.folder.name}-{manifest.name}"
    number = 1
    while True:
        file = folder / f"{stem}{'' if number == 1 else f'-{number}'}{SUFFIX}"
        if not file.exists() or _is_of(file, manifest):
            return file
        number += 1


def _is_of(file: Path, manifest: Manifest) -> bool:
    with contextlib.suppress(LabError, OSError):  # a file that cannot be read may be anything, and is left
        there = open_bundle(file).bundle
        return (there.lab_id, there.snapshot) == (manifest.lab_id, manifest.id)
    return False


# --- before anything is written -----------------------------------------------------------------------


def _refuse_target(target: Path, *, replaces: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target} is a folder", hint=f"-o {target / f'NAME{SUFFIX}'} names a file in it")
    refuse_special(target, hint="-o FILE chooses another name")
    if target.exists() and not replaces:
        raise Conflict(f"{target} exists", hint="--force replaces it; -o FILE chooses another name")
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}", hint="make it first, or -o FILE elsewhere")


def _refuse_running(session: Session) -> None:
    running = session.power().running
    if running:
        name = session.lab.folder.name
        raise Conflict(
            f"lab {name!r} is not off",
            details=[f"{node} runs" for node in running],
            hint=(Remedy("stop", lab=name), " first: a bundle holds disks, no RAM"),
        )


def _box(session: Session) -> Box:
    """The box that the lab was created from: a bundle's disks are differences to exactly that one."""
    if box := box_of(session.lab.home, session.record.box):
        return check_box(box)
    raise BoxError(
        f"the box {session.record.box}, from which lab {session.lab.folder.name!r} was created, is not in the store",
        hint=(
            Remedy("box list"),
            " shows those that are; ",
            Remedy("box build"),
            " makes the same one from the same packages",
        ),
    )


def _refuse_unfit(session: Session, manifest: Manifest) -> None:
    """Make sure that a snapshot holds the disks of the lab as it is now, unchanged."""
    problems = [
        f"{node.name} is in the lab, but not in the snapshot"
        for node in session.plan.nodes
        if manifest.node(node.name) is None
    ]
    problems += [
        f"{node.name} is in the snapshot, but no longer in the lab"
        for node in manifest.nodes
        if session.plan.node(node.name) is None
    ]
    problems = problems or file_problems(session.machines, manifest, [PartKind.DISK])
    if problems:
        name = session.lab.folder.name
        raise Conflict(
            f"snapshot {manifest.name!r} cannot be kept",
            details=[*problems, "the lab has not been touched"],
            hint=(Remedy("snapshot rm", lab=name, options=(manifest.name,)), " does without it"),
        )


def _refuse_no_room(session: Session, order: Order, box: Box) -> None:
    transfer = needed_disk_transfer(session.machines)
    weights = [transfer.size_estimate(node.name, order.key) for node in session.plan.nodes]
    # Each disk is assembled beside the file before it is packed into it. The copies of layers from which klab assembles
    # one that it may not read in place are gone by then, and take no more than packing does.
    needed = sum(weights) + max(weights)
    if order.with_box:
        needed += sum(file.size for name, file in box.files.items() if name in PORTABLE)
        needed += sum(_image_files(session).values())
    free = shutil.disk_usage(order.target.parent).free
    if free < needed:
        raise HostError(
            f"there is no room for a bundle in {order.target.parent}",
            details=[shortage(needed, free, order.target.parent)],
            hint="-o FILE puts it on another disk"
            if order.snapshot is None
            else ("free space there, or ", Remedy("snapshot rm"), " the snapshots that need not be kept"),
        )


# --- writing ------------------------------------------------------------------------------------------


def _write(session: Session, order: Order) -> BundleFile:
    box = _box(session)
    if order.snapshot is not None:
        _refuse_unfit(session, order.snapshot)
    _refuse_no_room(session, order, box)
    secrets = _secrets(session)
    session.events.add("", "checkpoint", "begin", order.name)
    with undoing(lambda: _LEFT), writing(order.target) as writer:
        draft = _draft(session, order, box, list(secrets))
        writer.begin(draft)
        for name, content in secrets.items():
            writer.add(name, io.BytesIO(content), lambda _size: None)
        for node in session.plan.nodes:
            _add_disk(session, order, box, writer, node.name)
        if order.with_box:
            _add_box(session, box, writer)
            _add_images(session, writer)
        made = writer.seal(draft, order.sign)
    session.events.add("", "checkpoint", "done", order.name)
    return made


def _secrets(session: Session) -> dict[str, bytes]:
    """By member the lab's keys and certificates."""
    root = session.lab.folder.path
    # Other files there, such as known_hosts, which names the lab, are not put into a bundle.
    files = {name: root / name for name in sorted(keys.NAMES) if (root / name).is_file()}
    found = {name: file.read_bytes() for name, file in files.items()}
    try:
        keys.check_keys(found)
    except ValueError as error:
        raise Conflict(
            f"the keys of lab {session.lab.folder.name!r} are damaged",
            details=[str(error)],
            hint=f"put the file back in {root}",
        ) from error
    return found


def _draft(session: Session, order: Order, box: Box, secrets: list[str]) -> Bundle:
    """The manifest without sizes and digests."""
    record, transfer = session.record, needed_disk_transfer(session.machines)
    plan = plan_of(order.snapshot, session.plan) if order.snapshot else session.plan
    now = session.lab.clock()
    portable = [name for name in PORTABLE if name in box.files]
    names = [*secrets, *(disk_member(node.name) for node in plan.nodes)]
    names += [box_member(name) for name in portable] if order.with_box else []
    names += [image_member(digest) for digest in _image_files(session)] if order.with_box else []
    emulator = next(iter(session.machines.captures().platform().values()), {}).get("QEMU")
    return Bundle(
        name=order.name,
        created=now,
        guest_time=order.snapshot.guest_time if order.snapshot else session.guest_time(now),
        lab=record.name,
        lab_id=record.id,
        lab_created=record.created,
        provider=record.provider,
        accelerated=record.accelerated,
        plan=plan,
        scenario_text=_scenario(session),
        box=BoxPart(
            **facts(box),
            files={name: (box.files[name].size, box.files[name].sha256) for name in portable},
        ),
        host_keys={node.name: transfer.host_key(node.name, order.key) for node in plan.nodes},
        snapshot=order.key or "",
        versions={**versions(plan, session.record.box), **({"QEMU": emulator} if emulator else {})},
        members=tuple(Member(name, 0, "", 0) for name in names),
        images=images_of(session.lab.folder),
    )


def _scenario(session: Session) -> str:
    """The scenario as the person wrote it; empty where the file is gone: the plan has all that is needed."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return session.lab.folder.scenario_file.read_text(encoding="utf-8")
    return ""


def _add_disk(session: Session, order: Order, box: Box, writer: Writer, node: str) -> None:
    with _step(session, node, "pack"):
        file = writer.scratch / f"{node}.qcow2"
        needed_disk_transfer(session.machines).export(node, box.disk, file, order.key)
        with file.open("rb") as source:
            progress = Progress(session.lab.listener, node, "pack", file.stat().st_size)
            writer.add(disk_member(node), source, progress)
        file.unlink()


def _add_box(session: Session, box: Box, writer: Writer) -> None:
    with _step(session, "", "box"):
        portable = {name: box.files[name] for name in PORTABLE if name in box.files}
        progress = Progress(session.lab.listener, "", "box", sum(file.size for file in portable.values()))
        for name, known in portable.items():
            with (box.folder / name).open("rb", buffering=0) as file:
                source = _Digesting(file)
                writer.add(box_member(name), io.BufferedReader(source, READ_BLOCK), progress)
            if source.digest.hexdigest() != known.sha256:
                raise BoxError(
                    f"the box {box.name} ({box.short}) is damaged",
                    details=[f"{name}: SHA-256 is {source.digest.hexdigest()}, not {known.sha256}"],
                    hint=(
                        Remedy("box rm", options=(box.name,)),
                        " and ",
                        build_command(box.recipe, box.kubernetes),
                    ),
                )


def _image_files(session: Session) -> dict[str, int]:
    """The files of the lab's images that this machine keeps whole, with their sizes; the nodes have all of them."""
    store = Store(session.lab.home)
    found: dict[str, int] = {}
    for image in images_of(session.lab.folder):
        if all(store.has(Blob(digest, size)) for digest, size in image.files.items()):
            found |= image.files
    return found


def _add_images(session: Session, writer: Writer) -> None:
    files, blobs = _image_files(session), Store(session.lab.home).blobs
    if not files:
        return
    with _step(session, "", "images"):
        progress = Progress(session.lab.listener, "", "images", sum(files.values()))
        for digest in files:
            with (blobs / digest).open("rb") as source:
                made = writer.add(image_member(digest), source, progress)
            if made.sha256 != digest:
                raise ImageError(
                    "an image that this machine keeps is damaged",
                    details=[f"{blobs / digest} has the SHA-256 {made.sha256}"],
                    hint=("remove that file; ", remedy_load(session.lab.name, "IMAGE"), " fetches it again"),
                )


class _Digesting(io.RawIOBase):
    """A file whose digest is taken while it is read."""

    def __init__(self, file: io.RawIOBase) -> None:
        super().__init__()
        self._file = file
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = self._file.readinto(buffer) or 0
        self.digest.update(buffer[:size])
        return size


@contextlib.contextmanager
def _step(session: Session, node: str, phase: str) -> Iterator[None]:
    session.events.add(node, phase, "begin")
    yield
    session.events.add(node, phase, "done")
