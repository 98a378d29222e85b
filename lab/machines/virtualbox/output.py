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

from lab.machines.protocol import NodeState

NAMESPACE = "{http://www.virtualbox.org/}"
_VM = re.compile(r'^"(?P<name>.*)" \{(?P<uuid>[0-9a-f-]{36})\}$')
_PAIR = re.compile(r'^(?:"(?P<quoted>[^"]*)"|(?P<key>[^=]+))=(?:"(?P<text>.*)"|(?P<bare>.*))$')
_NAME = re.compile(r'^SnapshotName(?:-[\d-]+)?="(?P<name>.*)"$')
_FIELD = re.compile(r"^(?P<name>[A-Za-z0-9]+): *(?P<value>\S.*)$")
_MACHINE_FOLDER = re.compile(r"^Default machine folder: *(?P<folder>/.*)$", re.MULTILINE)
_STATES = {
    "running": NodeState.RUNNING,
    "starting": NodeState.RUNNING,
    "stopping": NodeState.RUNNING,
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
    """Keys and values of `VBoxManage showvminfo --machinereadable`; a value may span lines (the description)."""
    info: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        match = _PAIR.match(line)
        if match:
            key = match["quoted"] or match["key"]
            info[key] = match["text"] if match["text"] is not None else match["bare"]
        elif key:
            info[key] += f"\n{line}"
    # The quotes of a value over several lines are on different lines.
    return {key: value.strip('"') for key, value in info.items()}


def state_of(info: dict[str, str]) -> NodeState:
    """The value of `VMState`."""
    return _STATES.get(info.get("VMState", ""), NodeState.STOPPED)


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
