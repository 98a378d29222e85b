"""Snapshots of a lab of two tiny nodes, in a process of their own that a test can kill.

python -m contract.snapshots_driver HOME BOX STEP...

A step is a word and what it is about: `take=NAME`. After `kill=STEP+SECONDS` the process is killed
so many seconds after it has written down that it begins that step of an act, or first does that call
of libvirt's; after `full=STEP+BYTES` the disk is filled up there but for so many bytes. `fail=CALL` lets
the first such call of libvirt's fail. `spoil=WAY:NAME` makes a snapshot unfit until `mend`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract.guests import NODES, answers, note, noted, stir, write_on, written
from contract.labs import make_lab

from lab.cluster.lab import Lab
from lab.errors import LabError
from lab.host.network import enter_host_network
from lab.machines.libvirt.capture_index import CaptureIndex
from lab.machines.libvirt.connection import library
from lab.machines.protocol import Machines
from lab.machines.providers import open_machines
from lab.snapshots.commands import remove, restore, take, verify
from lab.snapshots.journal import AttemptJournal
from lab.snapshots.recover import recover
from lab.snapshots.store import SnapshotStore
from lab.store import Home
from lab.waiting import Deadline, poll

SECONDS = 300
NAME = "snapped"
SEAT = 3
# Calls of libvirt's that take some time, by their objects.
CALLS = {
    "snapshotCreateXML": "virDomain",
    "destroy": "virDomain",
    "restoreFlags": "virConnect",
    "delete": "virStorageVol",
}
DISKS = Path("/var/lib/libvirt/images")
FILLER = DISKS / "filler"
DISK_BYTES = 4 << 30
FULL_BYTES = 60 << 20  # less than the RAM of the two
META_BYTES = 1 << 20  # what the file system takes itself to note what a file has
BLOCK = 4096


def say(what: str, value: object) -> None:
    print(json.dumps([what, value]), flush=True)  # noqa: T201 - its parent reads this


def at_step(step: str, act: Callable[[], None]) -> None:
    """Do something as soon as an act has written down that it begins that step, or does that call of libvirt's."""
    if step in CALLS:
        kind = getattr(library(), CALLS[step])
        call = getattr(kind, step)
        setattr(kind, step, lambda *words: (act(), call(*words))[1])
        return
    write = AttemptJournal._write

    def noticed(journal: AttemptJournal, attempt: Any) -> Any:
        write(journal, attempt)
        if attempt.step == step:
            act()
        return attempt

    AttemptJournal._write = noticed  # type: ignore[method-assign]


def fail_once(call: str) -> None:
    """Let that call of libvirt's fail the first time."""
    told = iter([library().libvirtError("told to fail")])

    def fail() -> None:
        for error in told:
            raise error

    at_step(call, fail)


def die(after: float) -> None:
    def now() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Timer(after, now).start() if after else now()


def small_disk(home: Home) -> None:
    """Let all disks lie in a file system of their own, in the private libvirt's mount namespace."""
    file = home.root / "disks.ext4"
    with file.open("wb") as out:
        out.truncate(DISK_BYTES)
    for words in (["/usr/sbin/mkfs.ext4", "-q", "-m", "0", file], ["/usr/bin/mount", "-o", "loop", file, DISKS]):
        subprocess.run(words, check=True, capture_output=True)
    # As on a machine with one disk, what klab writes down lies there, too.
    for folder in (home.lab(NAME).snapshots, home.lab(NAME).captures):
        (DISKS / "books" / folder.name).mkdir(parents=True)
        folder.mkdir()
        subprocess.run(["/usr/bin/mount", "--bind", DISKS / "books" / folder.name, folder], check=True)


def fill(left: int) -> None:
    """Leave so many bytes of the disk."""
    with FILLER.open("wb", buffering=0) as out:
        os.posix_fallocate(out.fileno(), 0, shutil.disk_usage(DISKS).free - max(left, META_BYTES))
        if left:
            return
        out.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError):
            while True:
                out.write(bytes(BLOCK))


def spoil(lab: Lab, machines: Machines, way: str, name: str) -> Callable[[], object]:
    """Make a snapshot unfit: another byte, a file less, or what its manifest says; returns what mends it."""
    manifest = SnapshotStore(lab.folder).pick(name)
    what, _, kind = way.partition(" ")
    if what in {"changed", "missing"}:
        parts = machines.captures().parts(manifest.id)
        part = next(part for part in parts if part.node == NODES[-1] and part.kind == kind)
        file = DISKS / f"klab-{manifest.lab_id}" / part.name
        if what == "missing":
            aside = file.rename(file.with_suffix(".aside"))
            return lambda: aside.rename(file)
        flip(file)
        return lambda: flip(file)
    file = lab.folder.snapshots / f"{manifest.id}.json"
    good = file.read_text()
    platform = manifest.nodes[-1].platform
    changes = {
        "half": lambda: good[: len(good) // 2],
        "lab": lambda: good.replace(manifest.lab_id, "another"),
        "QEMU": lambda: good.replace(f'"QEMU": "{platform["QEMU"]}"', '"QEMU": "99.2.3"'),
        "CPU": lambda: good.replace(f'"CPU model": "{platform["CPU model"]}"', '"CPU model": "i486"'),
    }
    bad = changes[what]()
    assert bad != good
    file.write_text(bad)
    return lambda: file.write_text(good)


def flip(file: Path) -> None:
    """Change the lowest bit of a byte in the middle, and neither size nor times; done twice, nothing has changed."""
    before = file.stat()
    with file.open("r+b") as out:
        at = file.stat().st_size // 2
        out.seek(at)
        byte = out.read(1)
        out.seek(at)
        out.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def main() -> None:
    root, box, *steps = sys.argv[1:]
    home = Home(Path(root))
    enter_host_network(home)
    made = make_lab(home, NAME, nodes=2, provider="libvirt", box=Path(box), seat=SEAT)
    machines = made.open()
    lab = Lab(home, made.folder, made.plan, open_machines)
    mends: list[Callable[[], object]] = []
    for step in steps:
        word, _, about = step.partition("=")
        try:
            match word:
                case "up":
                    machines.up(Deadline.after(SECONDS), print)
                    machines.drop_seeds()
                    made.folder.update_record(phase="ready")
                case "note":
                    note(machines, about)
                case "noted":
                    say(word, sorted(noted(machines)))
                case "kill":
                    at, _, after = about.partition("+")
                    at_step(at, lambda after=after: die(float(after or 0)))  # type: ignore[misc]
                case "fail":
                    fail_once(about)
                case "small":
                    small_disk(home)
                case "fill":
                    fill(int(about) << 20)
                case "full":
                    at, _, left = about.partition("+")
                    at_step(at, lambda left=left: fill(int(left or FULL_BYTES)))  # type: ignore[misc]
                case "empty":
                    FILLER.unlink()
                case "stir":
                    stir(machines)
                case "spoil":
                    way, _, name = about.partition(":")
                    mends.append(spoil(lab, machines, way, name))
                case "mend":
                    mends.pop()()
                case "write":
                    write_on(machines)
                case "written":
                    say(word, written(machines))
                case "take":
                    taken = take(lab, about)
                    say(word, {n.name: n.frozen for n in taken.manifest.nodes})
                case "verify":
                    found = verify(lab)
                    say(word, [found.whole, [[each.file, each.snapshots] for each in found.damage]])
                case "restore":
                    say(word, restore(lab, about or None).seconds)
                case "recover":
                    say(word, recover(lab))
                case "rm":
                    remove(lab, about.split(","))
                case "names":
                    say(word, [m.name for m in SnapshotStore(made.folder).manifests()])
                case "keys":
                    say(
                        word,
                        [
                            sorted(m.id for m in SnapshotStore(made.folder).manifests()),
                            sorted(machines.captures().keys()),
                        ],
                    )
                case "images":
                    entries = CaptureIndex(made.folder.captures).readable()[0]
                    needed = {name for e in entries for saved in e.nodes.values() for name in saved.memories}
                    say(word, [sorted(needed), sum(len(m.running) for m in SnapshotStore(made.folder).manifests())])
                case "states":
                    say(word, sorted({state.value for state in machines.states().values()}))
                case "files":
                    say(word, sorted(line.removeprefix("volume ") for line in machines.leftovers() if "volume" in line))
                case "stop":
                    machines.stop(NODES, Deadline.after(SECONDS))
                case "start":
                    machines.start(NODES)
                    for node in NODES:
                        poll(lambda n=node: answers(machines, n), Deadline.after(SECONDS))  # type: ignore[misc]
                case "leftovers":
                    say(word, machines.leftovers())
                case "destroy":
                    machines.destroy(print)
        except LabError as error:
            say("error", [type(error).__name__, error.message, *error.details])


if __name__ == "__main__":
    main()
