"""Make a lab from a bundle: the same machines, disks, keys and addresses, on another host.

    check -> verify every byte -> box -> folder -> disks and machines -> start, until Ready

Nothing is written before the file was verified and the host checked. From the lab's folder on it is as with
`create`: after a kill the same command continues, and `destroy` removes what there is.
"""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.boxes.incoming import put
from lab.boxes.manifest import DISK, Box, build_command
from lab.boxes.store import check_box, folder_of, list_boxes
from lab.bundles.boxes import Offer, box_in
from lab.bundles.file import BundleFile
from lab.bundles.format import Bundle, box_member, damaged, disk_member, image_member
from lab.bundles.keys import check_keys
from lab.bundles.layout import MODE
from lab.cluster.acts.certificates import renew
from lab.cluster.acts.power import PowerResult, await_ssh, start
from lab.cluster.admin_kubeconfig import write_kubeconfig
from lab.cluster.events import Event, Journal, State
from lab.cluster.lab import Lab
from lab.cluster.observe.expiry import refuse_expired
from lab.cluster.progress import Progress
from lab.cluster.secrets import load_or_make
from lab.cluster.wait.watch import Watch
from lab.errors import BoxError, ClusterError, Conflict, LabError, Remedy
from lab.files import write_atomic
from lab.host.capacity import DiskRoom
from lab.host.profile import HostProfile
from lab.images.record import LabImage
from lab.images.record import add as add_images
from lab.images.record import keep as keep_images
from lab.images.store import Image, Store, image_of, small_text
from lab.machines.disk_transfer import Incoming
from lab.machines.protocol import NodeState, needed_disk_transfer
from lab.plan.file import from_json, to_json
from lab.plan.model import Plan
from lab.plan.names import management_network_name, network_name
from lab.scenario.kinds import check_name
from lab.store import Home, LabFolder, Record

GIB = 1 << 30
# Clocks that differ by less do no harm.
CLOCK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Request:
    """Which lab is to be made of which bundle; the lab's plan is `plan_of` the bundle."""

    lab: Lab
    file: BundleFile
    provider: str
    profile: HostProfile

    @property
    def bundle(self) -> Bundle:
        return self.file.bundle


@dataclass(frozen=True, slots=True)
class Made:
    """A lab that was made from a bundle and runs. `already`: it existed before; `seconds` how long it took.

    `warnings` say how this host differs from the one where the bundle was written.
    """

    folder: LabFolder
    power: PowerResult
    already: bool
    seconds: float
    warnings: tuple[str, ...]


def plan_of(bundle: Bundle, name: str | None = None) -> Plan:
    """The plan of the lab that comes from a bundle: perhaps with another name, but with the same machines.

    Raises:
        ValueError: `name` is not a valid lab name.
    """
    chosen = check_name(bundle.plan.name if name is None else name)
    networks = replace(bundle.plan.networks, name=network_name(chosen), management_name=management_network_name(chosen))
    return replace(bundle.plan, name=chosen, networks=networks)


# --- before anything is touched -----------------------------------------------------------------------


def refuse_conflict(home: Home, plan: Plan, file: BundleFile) -> Record | None:
    """Make sure that no other lab has the name or the machines.

    Returns:
        The record of the lab that was made, or begun, from just this bundle; None where there is none.

    Raises:
        Conflict: another lab has.
    """
    folder = home.lab(plan.name)
    record = folder.record() if folder.exists else None
    if record is not None:
        if record.phase == "destroying":
            raise Conflict(
                f"lab {plan.name!r} is half destroyed",
                hint=(Remedy("destroy", lab=plan.name, options=("-y",)), " finishes that"),
            )
        if record.checkpoint != file.digest:
            raise Conflict(
                f"a lab called {plan.name!r} exists and is not from this bundle",
                hint=("choose another name with --name, or ", Remedy("destroy", lab=plan.name), " first"),
            )
        return record
    uuids = {node.uuid for node in plan.nodes}
    for other in home.existing():
        if uuids & _uuids(other):
            raise Conflict(
                f"lab {other.name!r} has the same machines as this bundle: their ids and addresses are equal",
                hint=(
                    "both cannot be on one machine: ",
                    Remedy("destroy", lab=other.name),
                    " first; ",
                    Remedy("destroy", options=("--keep-snapshots",)),
                    " keeps its snapshots",
                ),
            )
    return None


def _uuids(folder: LabFolder) -> set[str]:
    try:
        return {node.uuid for node in from_json(folder.plan_text()).nodes}
    except LabError:
        return set()  # a damaged lab; what it has in libvirt is looked at later


def box_at_hand(home: Home, bundle: Bundle) -> Box | None:
    """The bundle's box, where it is in the store; None where it is in the bundle alone.

    Raises:
        BoxError: it is in neither.
    """
    for box in list_boxes(home):
        if box.digest == bundle.box.digest:
            try:
                return check_box(box)
            except BoxError:
                if bundle.with_box:
                    return None
                raise
    if bundle.with_box:
        return None
    wanted = bundle.box
    raise BoxError(
        f"the bundle {bundle.name} was written without its box, and that is not here",
        details=[f"{wanted.folder}: the disk's SHA-256 is {wanted.digest}"],
        hint=(
            build_command(wanted.recipe, wanted.kubernetes),
            f" makes the same one from the same {'packages' if wanted.kubernetes else 'file'}; "
            "or ask for a bundle with its box",
        ),
    )


def secrets_in(file: BundleFile) -> dict[str, bytes]:
    """A bundle's keys and certificates by FOLDER/FILE, all valid.

    Raises:
        UsageError: one is invalid.
        OSError: the file cannot be read.
    """
    found = {member.name: file.read(member) for member in file.bundle.secrets}
    try:
        check_keys(found)
    except ValueError as error:
        raise damaged(str(error)) from error
    return found


def room_problems(bundle: Bundle, box: Box | None, home: DiskRoom, disks: DiskRoom) -> list[str]:
    """Why there is too little space for the content of a bundle, one line each; [] when it fits.

    Args:
        bundle: the bundle.
        box: its box, if it is in the store.
        home: the space in KLAB_HOME, where the box goes.
        disks: the space where the machines' disks go.
    """
    in_store = box_member(DISK)
    coming = sum(m.content for m in bundle.members if m.name != in_store)
    # Vagrant needs a second copy of the box's disk.
    boxes = 0 if box else 2 * bundle.box.files[DISK][0]
    needs = [(boxes + coming, disks)] if _on_one_disk(home, disks) else [(boxes, home), (coming, disks)]
    return [
        f"the bundle needs {needed / GIB:.1f} GiB disk, {room}; {room.elsewhere}"
        for needed, room in needs
        if needed > room.free
    ]


def _on_one_disk(one: DiskRoom, other: DiskRoom) -> bool:
    try:
        return Path(one.folder).stat().st_dev == Path(other.folder).stat().st_dev
    except OSError:  # a folder that this person may not look at
        return False


def differences(request: Request) -> tuple[str, ...]:
    """How this host differs from the one where the bundle was written, one line each."""
    bundle, lines = request.bundle, []
    behind = bundle.guest_time - time.time()
    if behind > CLOCK_SECONDS:
        made = datetime.datetime.fromtimestamp(bundle.created, datetime.UTC)
        lines.append(
            f"this machine's clock is behind: the bundle was written on {made:%Y-%m-%d at %H:%M} UTC; "
            "certificates may not be valid yet"
        )
    if bundle.accelerated and not request.profile.accelerated:
        lines.append(
            "the lab was created with hardware virtualization and runs without it here: its nodes' time limits are "
            "too short for that, and pods may be restarted"
        )
    return tuple(lines)


# --- making it ----------------------------------------------------------------------------------------


def create_from_bundle(request: Request) -> Made:
    """Make the lab, start it and wait until it is Ready; the caller has checked that it fits.

    Raises:
        Conflict: the name, a machine or a network is another's, or another klab works on the lab.
        UsageError: the bundle is damaged.
        BoxError: its box is not here, or damaged.
        MachineError, ClusterError, NotReadyInTime: as `start`; the lab is left as it is, and the same call continues.
    """
    began = time.monotonic()
    lab = request.lab
    with lab.folder.lock():
        # Once more, now that the lab is locked.
        record = refuse_conflict(lab.home, lab.plan, request.file)
        already = record is not None and record.phase == "ready"
        if not already:
            _make(request, record)
    power = _start(lab)
    return Made(lab.folder, power, already, time.monotonic() - began, differences(request))


def _make(request: Request, record: Record | None) -> None:
    lab, folder, file = request.lab, request.lab.folder, request.file
    wanted = record or _new_record(request)
    machines = lab.machines(wanted)
    needed_disk_transfer(machines)
    machines.check_new()
    _tell(request, "verify", "begin")
    file.verify(Progress(lab.listener, "", "verify", sum(m.size for m in request.bundle.members)))
    secrets = secrets_in(file)
    _tell(request, "verify", "done")
    box = _box(request)
    if record is None:
        _write_folder(request, wanted)
    _images(request)
    journal = lab.journal()
    journal.add("", "create", "begin", "" if record is None else "again")
    _write_secrets(folder, secrets)
    load_or_make(folder)
    write_kubeconfig(folder, lab.plan)
    transfer = needed_disk_transfer(lab.machines(wanted, box.vagrant_box))
    journal.add("", "disks", "begin")
    transfer.import_disks(_disks(request), lambda node: _say(journal, node))
    journal.add("", "disks", "done")
    folder.update_record(phase="ready")
    journal.add("", "create", "done")


def _say(journal: Journal, node: str) -> None:
    journal.add(node, "disk", "done")


def _tell(request: Request, phase: str, state: State) -> None:
    """An event while there is no journal yet."""
    if request.lab.listener is not None:
        request.lab.listener(Event(time.time(), "", phase, state))


def _new_record(request: Request) -> Record:
    bundle = request.bundle
    return Record(
        id=str(uuid.uuid4()),
        name=request.lab.plan.name,
        provider=request.provider,
        box=folder_of(request.lab.home, bundle.box.name, bundle.box.digest).name,
        seat=request.lab.plan.seat,
        phase="creating",
        # As old as its certificates.
        created=bundle.lab_created,
        accelerated=request.profile.accelerated,
        dilation=request.profile.dilation,
        # The guests' clocks start with this host's: they never showed a later time.
        epoch=time.time(),
        checkpoint=request.file.digest,
    )


def _box(request: Request) -> Box:
    """The box in the store; it is put there if it is not."""
    home = request.lab.home
    found = box_at_hand(home, request.bundle)
    if found is not None:
        return found
    offer = Offer(request.file.path, box_in(request.file), request.file)
    progress = Progress(request.lab.listener, "", "box", offer.box.size)
    _tell(request, "box", "begin")
    made = put(home, offer.box, lambda name, target: offer.fetch(name, target, progress))
    _tell(request, "box", "done")
    return made


def _images(request: Request) -> None:
    """What klab had brought to the nodes: the list, and for nodes that are added later, what the bundle has of it."""
    bundle, store = request.bundle, Store(request.lab.home)
    if not bundle.images:
        return
    keep_images(request.lab.folder, bundle.images)
    came_whole: list[LabImage] = []
    there = {member.name: member for member in bundle.members}
    progress = Progress(request.lab.listener, "", "images", sum(image.size for image in bundle.images))
    with store.lock():
        for image in bundle.images:
            members = {digest: there.get(image_member(digest)) for digest in image.files}
            with store.incoming() as came:
                for digest, member in members.items():
                    if member is not None:
                        request.file.write(member, came / digest, progress)
                if all(member is not None for member in members.values()):
                    came_whole.append(_take(store, image, came))
    add_images(request.lab.folder, came_whole)


def _take(store: Store, image: LabImage, came: Path) -> LabImage:
    """Have an image that came whole in the store; returns it with what its own files say of it."""
    try:
        texts = [small_text(came / digest) for digest in image.revisions]
        found = image_of(image.reference, texts)
    except (OSError, ValueError) as error:
        raise damaged(f"the image {image.ref}: {error}") from error
    if not isinstance(found, Image) or LabImage.of(found) != image:
        raise damaged(f"the image {image.ref} is another one than it should be")
    # Without its name: what other labs get by that is not for a stranger to say.
    store.take(found, came, named=False)
    return LabImage.of(found, store)


def _write_folder(request: Request, record: Record) -> None:
    """Write what `destroy` needs, and then the record, which makes the folder a lab."""
    folder = request.lab.folder
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.path.chmod(0o700)
    folder.logs.mkdir(exist_ok=True)
    write_atomic(folder.scenario_file, request.bundle.scenario_text)
    write_atomic(folder.plan_file, to_json(request.lab.plan))
    folder.write_record(record)


def _write_secrets(folder: LabFolder, secrets: Mapping[str, bytes]) -> None:
    for name, content in secrets.items():
        file = folder.path / name
        file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(file, content, mode=MODE)


def _disks(request: Request) -> dict[str, Incoming]:
    def incoming(node: str) -> Incoming:
        member = request.bundle.member(disk_member(node))
        progress = Progress(request.lab.listener, node, "disk", member.content)
        return Incoming(request.bundle.host_keys[node], lambda target: request.file.write(member, target, progress))

    return {node.name: incoming(node.name) for node in request.lab.plan.nodes}


# --- starting it --------------------------------------------------------------------------------------


def _start(lab: Lab) -> PowerResult:
    """As `klab start`; certificates that have expired since the bundle was written are renewed."""
    journal = lab.journal()
    try:
        power = start(lab)
    except ClusterError as error:
        if not _expired(lab):
            raise
        journal.add("", "certificates", "note", f"{error.message}: they are renewed")
        renew(lab)
        power = start(lab)
    if lab.plan.bootstrap != "full":
        _await_answers(lab, journal, power.running)
    return power


def _await_answers(lab: Lab, journal: Journal, nodes: Sequence[str]) -> None:
    """Wait for machines that a killed klab has started: `start` waits only for those that it starts itself."""
    record = lab.folder.record()
    await_ssh(Watch(lab.folder, lab.plan, lab.machines(record), journal, lab.deadline(record), nodes), nodes)


def _expired(lab: Lab) -> bool:
    record = lab.folder.record()
    machines = lab.machines(record)
    running = [name for name, state in machines.states().items() if state == NodeState.RUNNING]
    try:
        refuse_expired(lab.folder, lab.plan, record, machines, running, lab.deadline(record))
    except ClusterError:
        return True
    return False
