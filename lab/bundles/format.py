"""A bundle's manifest: its lab, its box and its files.

A bundle may come from any person, so nothing in its manifest is used before it was validated: names become names of
files, addresses become networks of this host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lab import records
from lab.bundles import keys
from lab.errors import LabError, UsageError
from lab.images.record import LabImage, check_images
from lab.images.record import to_data as images_to_data
from lab.plan.file import from_json as plan_from_json
from lab.plan.file import to_data as plan_to_data
from lab.plan.foreign import plan_problems
from lab.plan.model import Plan
from lab.scenario.kinds import check_name
from lab.snapshots.names import NAME, NAME_HINT

FORMAT = 1
# Of a bundle with images of its lab: a klab that does not know of them says that it is of a newer one.
WITH_IMAGES = 2
MOST_PROBLEMS = 5
SUFFIX = ".klab"
PACKED = ".gz"
NODES, BOX, IMAGES = "nodes", "box", "images"
_BOX_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,80}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
_HOST_KEYS = re.compile(r"(?:[\x20-\x7e]{1,20000}\n){0,20}")
_MOST_BYTES = 1 << 50
_MOST_SECONDS = 1 << 36  # of the year 4147; what a clock shows


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a bundle: its size in bytes there, their SHA-256, and its size when unpacked."""

    name: str
    size: int
    sha256: str
    content: int

    @property
    def packed(self) -> bool:
        return self.name.endswith(PACKED)


@dataclass(frozen=True, slots=True)
class BoxPart:
    """The box that the disks lie on, as `lab.boxes.store` describes it; size and SHA-256 of its files by name."""

    name: str
    digest: str
    inputs: str
    kubernetes: str
    recipe: str
    created: float
    virtual_mib: int
    files: Mapping[str, tuple[int, str]]

    @property
    def folder(self) -> str:
        """The name of its folder, in every store."""
        return f"{self.name}@{self.digest[:12]}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle.

    `name` is the person's. `created` is when it was written and `guest_time` what the guests' clocks showed then,
    `lab_created` when the lab was created, in seconds since 1970. `snapshot` is the id of the snapshot that it was made
    of; empty for a lab as it was. `accelerated`: whether its host had hardware virtualization: the nodes'
    probes have longer time limits where it had none. `host_keys` are by node the lines by which ssh knows it.
    `images` are those that klab has brought to the nodes; their files are members if the box is in the bundle as well.
    """

    name: str
    created: float
    guest_time: float
    lab: str
    lab_id: str
    lab_created: float
    provider: str
    accelerated: bool
    plan: Plan
    scenario_text: str
    box: BoxPart
    host_keys: Mapping[str, str]
    snapshot: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    images: tuple[LabImage, ...] = ()

    @property
    def with_box(self) -> bool:
        """Whether the box is in it."""
        return any(member.name.startswith(f"{BOX}/") for member in self.members)

    def member(self, name: str) -> Member:
        """The member of that name; `from_json` has made sure that it exists."""
        return next(member for member in self.members if member.name == name)

    @property
    def secrets(self) -> tuple[Member, ...]:
        """The lab's keys and certificates."""
        return tuple(member for member in self.members if is_secret(member.name))


def disk_member(node: str) -> str:
    return f"{NODES}/{node}.qcow2{PACKED}"


def box_member(file: str) -> str:
    return f"{BOX}/{file}{PACKED}"


def image_member(digest: str) -> str:
    """A file of an image, by its SHA-256 in hex; as it is, since layers are packed already."""
    return f"{IMAGES}/{digest}"


def is_secret(member: str) -> bool:
    """Whether a file of the lab's folder is a key or certificate that a bundle can hold, by its path there."""
    return member in keys.NAMES


def check_bundle_name(name: str) -> str:
    """The name again, if it is a valid bundle name.

    Raises:
        UsageError: it is not.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a valid bundle name", hint=f"{NAME_HINT}. -o FILE sets where the file goes")
    return name


def to_json(bundle: Bundle) -> str:
    version = WITH_IMAGES if bundle.images else FORMAT
    data = {"format": version, **asdict(bundle), "plan": plan_to_data(bundle.plan)}
    if not bundle.images:
        del data["images"]
    else:  # which of them are own builds follows from their files; an older klab knows of none
        data["images"] = images_to_data(replace(image, own_build=False) for image in bundle.images)
    return json.dumps(data, indent=1, ensure_ascii=True)


def from_json(text: str) -> Bundle:
    """Read a manifest.

    Raises:
        UsageError: it was written by a newer klab, is damaged, or has a value that klab never writes.
    """
    try:
        found = records.parse(text)
        version = records.pop_format(found)
        if isinstance(version, int) and version > WITH_IMAGES:
            raise _newer(version, found)
        if version not in (FORMAT, WITH_IMAGES):
            raise ValueError(f"its format is {version!r}")
        plan = plan_from_json(json.dumps(found.pop("plan", None)))
        return checked(records.build(Bundle, found, plan=plan))
    except LabError as error:
        if isinstance(error, UsageError):
            raise
        raise damaged("; ".join((error.message, *error.details))) from error
    except ValueError as error:
        raise damaged(f"its manifest: {error}") from error


def damaged(why: str) -> UsageError:
    """The error for a file that is not, or no longer, a whole bundle."""
    return UsageError(
        "this bundle is damaged", details=[why], hint="get the file again; compare its size with the original's"
    )


def _newer(version: int, found: Mapping[str, Any]) -> UsageError:
    versions = found.get("versions")
    made = versions.get("klab") if isinstance(versions, dict) else None
    by = f" by klab {made}" if isinstance(made, str) and _WORD.fullmatch(made) else ""
    return UsageError(
        f"this bundle was written{by} in format {version}; this klab reads up to {WITH_IMAGES}",
        hint="use that klab, or a newer one",
    )


def checked(found: Bundle) -> Bundle:
    """The same bundle, if every value in it is valid.

    Raises:
        ValueError: a value is invalid; the message names it.
    """
    numbers = (found.created, found.guest_time, found.lab_created, found.box.created)
    _must(
        all(_is_time(number) for number in numbers),
        "created, guest_time, lab_created and the box's created must be seconds since 1970",
    )
    _must(NAME.fullmatch(found.name) is not None, "invalid name")
    check_name(found.lab)
    _check_plan(found.plan)
    _check_box(found.box)
    _must(bool(found.box.kubernetes) != found.plan.cloud_image, "box: only a cloud image is without Kubernetes")
    names = {node.name for node in found.plan.nodes}
    _must(found.host_keys.keys() == names, "host keys must be given for exactly the nodes of the plan")
    _must(all(_HOST_KEYS.fullmatch(keys) for keys in found.host_keys.values()), "invalid host key")
    check_images(found.images)
    _check_members(found)
    return found


def _check_plan(plan: Plan) -> None:
    problems = plan_problems(plan)
    _must(not problems, "invalid plan: " + "; ".join(problems[:MOST_PROBLEMS]))


def _check_box(box: BoxPart) -> None:
    _must(_BOX_NAME.fullmatch(box.name) is not None, "box: invalid name")
    _must(_DIGEST.fullmatch(box.digest) is not None, "box: invalid digest")
    _must(
        all(_WORD.fullmatch(word) for word in (box.recipe, *filter(None, [box.kubernetes]))),
        "box: invalid version of Kubernetes or name of the recipe",
    )
    for name, (size, sha256) in box.files.items():
        _must(_WORD.fullmatch(name) is not None, f"box: invalid file name {name!r}")
        _must(_is_count(size) and _DIGEST.fullmatch(sha256) is not None, f"box file {name}: invalid size or SHA-256")
    _must("disk.qcow2" in box.files, "box: disk.qcow2 is missing")
    _must(box.files["disk.qcow2"][1] == box.digest, "box: its digest is not that of disk.qcow2")


def _check_members(found: Bundle) -> None:
    names = [member.name for member in found.members]
    disks = {disk_member(node.name) for node in found.plan.nodes}
    of_box = {box_member(name) for name in found.box.files}
    of_images = {image_member(name): size for image in found.images for name, size in image.files.items()}
    for member in found.members:
        known = member.name in disks or member.name in of_box or member.name in of_images or is_secret(member.name)
        _must(known, f"unexpected file {member.name!r}")
        _must(_is_count(member.size) and _is_count(member.content), f"{member.name}: invalid size")
        _must(_DIGEST.fullmatch(member.sha256) is not None, f"{member.name}: invalid SHA-256")
        _must(
            member.packed or member.size == member.content,
            f"{member.name}: not packed, but of two sizes",
        )
        if is_secret(member.name):
            _must(member.size <= keys.MOST_BYTES, f"{member.name}: too large for a key")
        if member.name in of_images:
            _must(
                member.content == of_images[member.name], f"{member.name}: its size is not the one given with the image"
            )
        if member.name in of_box:
            told = found.box.files[member.name.removeprefix(f"{BOX}/").removesuffix(PACKED)][0]
            _must(member.content == told, f"{member.name}: its size is not the one given with the box")
    _must(len(set(names)) == len(names), "a file is listed twice")
    _must(disks <= set(names), "the disk of a node is missing")
    _must(not found.with_box or box_member("disk.qcow2") in names, "the box's disk is missing")


def _is_time(number: float) -> bool:
    return 0 <= number < _MOST_SECONDS


def _is_count(number: int) -> bool:
    return 0 <= number < _MOST_BYTES


def _must(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(why)
