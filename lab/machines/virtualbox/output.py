"""What VBoxManage prints and VirtualBox writes, read.

Source: VirtualBox 7.0 user manual, chapter 8 (VBoxManage); src/VBox/Frontends/VBoxManage for the exact output of
`list vms`, `showvminfo --machinereadable` and `snapshot list`; src/VBox/Main/xml/Settings.cpp for the machine's
settings file. None of it could be run where klab is made: see docs/how-to/providers.md.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from xml.etree import ElementTree

from lab.errors import MachineError
from lab.machines.protocol import NodeState

NAMESPACE = "{http://www.virtualbox.org/}"
_VM = re.compile(r'^"(?P<name>.*)" \{(?P<uuid>[0-9a-f-]{36})\}$')
_PAIR = re.compile(r'^(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<key>[^="]+))=(?P<value>.*)$')
_ESCAPED = re.compile(r'\\(["\\])')
_IMAGE = re.compile(r"(?P<controller>.+)-ImageUUID-(?P<place>\d+-\d+)")
_PROPERTY = re.compile(r"^(?P<key>[A-Z][A-Za-z ]+): +(?P<value>.*)$")
_CAPACITY = re.compile(r"(?P<mib>\d{1,12}) MBytes")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAME = re.compile(r'^SnapshotName(?:-[\d-]+)?="(?P<name>.*)"$')
_FIELD = re.compile(r"^(?P<name>[A-Za-z0-9]+): *(?P<value>\S.*)$")
_MACHINE_FOLDER = re.compile(r"^Default machine folder: *(?P<folder>/.*)$", re.MULTILINE)
_STATES = {
    "running": NodeState.RUNNING,
    "starting": NodeState.RUNNING,
    "stopping": NodeState.RUNNING,
    "restoring": NodeState.RUNNING,
    "saving": NodeState.RUNNING,
    "livesnapshotting": NodeState.RUNNING,
    "onlinesnapshotting": NodeState.RUNNING,
    "deletingsnapshotlive": NodeState.RUNNING,
    "deletingsnapshotlivepaused": NodeState.PAUSED,
    "paused": NodeState.PAUSED,
    "saved": NodeState.PAUSED,
    "aborted": NodeState.CRASHED,
    "aborted-saved": NodeState.CRASHED,
    "gurumeditation": NodeState.CRASHED,
}


def parse_machines(text: str) -> dict[str, str]:
    """UUID by name, from `VBoxManage list vms`."""
    found = (_VM.match(line) for line in text.splitlines())
    return {match["name"]: match["uuid"] for match in found if match}


def parse_machine_folder(text: str) -> str:
    """The folder that machines are made in, from `VBoxManage list systemproperties`; empty where it names none."""
    found = _MACHINE_FOLDER.search(text)
    return found["folder"].rstrip() if found else ""


def parse_interfaces(text: str) -> dict[str, IPv4Network]:
    """The network of each host-only interface that has one, by name, from `VBoxManage list hostonlyifs`."""
    found = {}
    for block in text.split("\n\n"):
        told = {match["name"]: match["value"] for line in block.splitlines() if (match := _FIELD.match(line))}
        with contextlib.suppress(KeyError, ValueError):
            found[told["Name"]] = IPv4Network(f"{told['IPAddress']}/{told['NetworkMask']}", strict=False)
    return found


def parse_info(text: str) -> dict[str, str]:
    """Keys and values of `VBoxManage showvminfo --machinereadable`; a value may span lines (the description).

    Most strings are written by `outputMachineReadableString`, with a backslash before quotes and backslashes; a few,
    such as the path of a serial port, as they are.
    """
    info: dict[str, str] = {}
    key, lines = "", list[str]()
    for line in text.splitlines():
        if not lines:
            match = _PAIR.match(line)
            if match is None:
                continue
            key, line = _plain(match["quoted"] or match["key"] or ""), match["value"]
        lines.append(line)
        # The quotes of a value over several lines are on different lines.
        if not lines[0].startswith('"') or _closes(line, alone=len(lines) == 1):
            info[key] = _plain("\n".join(lines).removeprefix('"').removesuffix('"'))
            lines = []
    if lines:
        info[key] = _plain("\n".join(lines).removeprefix('"'))
    return info


def _closes(line: str, *, alone: bool) -> bool:
    """Whether a line ends with the quote that closes a value; `alone`: it begins with the one that opens it."""
    before = line[:-1]
    return line[-1:] == '"' and len(line) > alone and (len(before) - len(before.rstrip("\\"))) % 2 == 0


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def state_of(info: dict[str, str]) -> NodeState:
    """The value of `VMState`."""
    return _STATES.get(info.get("VMState", ""), NodeState.STOPPED)


def parse_disks(info: dict[str, str]) -> dict[str, str]:
    """The UUID of each hard disk of a machine, by the slot that it is in, from what `parse_info` returns."""
    found = {}
    for key, value in info.items():
        match = _IMAGE.fullmatch(key)
        # Drives have such a line, too, and one that tells whether their medium was ejected.
        if match and f"{match['controller']}-IsEjected-{match['place']}" not in info:
            found[f"{match['controller']}-{match['place']}"] = value
    return found


@dataclass(frozen=True, slots=True)
class Medium:
    """A disk image: the UUID of the one it lies on, empty for none; those that lie on it; its size in MiB."""

    parent: str
    children: tuple[str, ...]
    mib: int


def parse_medium(text: str) -> Medium:
    """What `VBoxManage showmediuminfo disk` prints (showMediumInfo in VBoxManageDisk.cpp).

    Raises:
        MachineError: the size is missing.
    """
    told = {match["key"]: match["value"] for line in text.splitlines() if (match := _PROPERTY.match(line))}
    size = _CAPACITY.fullmatch(told.get("Capacity", ""))
    if size is None:
        raise MachineError(
            "VirtualBox does not tell how large a disk is",
            details=text.splitlines()[:20],
            hint="VBoxManage list hdds shows the disks",
        )
    _, _, below = text.partition("\nChild UUIDs:")
    parent = told.get("Parent UUID", "base")
    return Medium("" if parent == "base" else parent, tuple(_UUID.findall(below)), int(size["mib"]))


def dvd_slots(info: dict[str, str], image: str) -> list[tuple[str, str, str]]:
    """Controller, port and device of each drive that holds an image of that file name."""
    found = []
    for key, value in info.items():
        controller, *place = key.rsplit("-", 2)
        if Path(value).name == image and controller and len(place) == 2 and all(part.isdecimal() for part in place):
            found.append((controller, place[0], place[1]))
    return found


@dataclass(frozen=True, slots=True)
class Shot:
    """A snapshot in a machine's settings file: its name, when it was taken, and the files it is made of."""

    name: str
    stamp: str
    state: Path | None
    disks: tuple[Path, ...]


def parse_names(text: str) -> set[str]:
    """The names in `VBoxManage snapshot NAME list --machinereadable`."""
    return {match["name"] for line in text.splitlines() if (match := _NAME.match(line))}


def parse_shots(text: str, folder: Path) -> dict[str, Shot]:
    """By name the snapshots in a machine's settings file.

    Args:
        text: the file.
        folder: where it lies; relative paths are counted from there, and disks elsewhere (the box's) are left out.

    Raises:
        ValueError: it cannot be read as a settings file.
    """
    try:
        machine = ElementTree.fromstring(text).find(f"{NAMESPACE}Machine")  # noqa: S314 - VirtualBox's own file
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    if machine is None:
        raise ValueError("it has no machine in it")
    disks = machine.findall(f"{NAMESPACE}MediaRegistry/{NAMESPACE}HardDisks/{NAMESPACE}HardDisk")
    try:
        chains, tops = dict(_chains(disks, ())), machine.findall(f"{NAMESPACE}Snapshot")
        return {shot.name: shot for top in tops for shot in _shots(top, folder, chains)}
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _chains(disks: Sequence[ElementTree.Element], below: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """By a disk image's UUID its file and those below it, from the top down."""
    for disk in disks:
        chain = (disk.get("location", ""), *below)
        yield disk.get("uuid", ""), chain
        yield from _chains(disk.findall(f"{NAMESPACE}HardDisk"), chain)


def _shots(found: ElementTree.Element, folder: Path, chains: Mapping[str, tuple[str, ...]]) -> Iterator[Shot]:
    own = [part for part in found if part.tag != f"{NAMESPACE}Snapshots"]
    uuids = [
        image.get("uuid", "")
        for part in own
        for device in part.iter(f"{NAMESPACE}AttachedDevice")
        if device.get("type") == "HardDisk"
        for image in device.findall(f"{NAMESPACE}Image")
    ]
    files = [folder / location for uuid in uuids for location in chains.get(uuid, ())]
    state = found.get("stateFile")
    yield Shot(
        found.get("name", ""),
        found.get("timeStamp", ""),
        folder / state if state else None,
        tuple(file for file in files if file.is_relative_to(folder)),
    )
    for child in found.findall(f"{NAMESPACE}Snapshots/{NAMESPACE}Snapshot"):
        yield from _shots(child, folder, chains)
