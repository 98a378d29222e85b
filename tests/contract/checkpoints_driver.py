"""Bundles of a lab of two tiny nodes, in a process of their own that a test can kill.

python -m contract.checkpoints_driver HOME NAME BOX STEP...

A step is a word and what it is about: `bundle=FILE`. After `kill=CALL`, or `kill=CALL:N+SECONDS`, the process is
killed when klab does that call, the Nth time, or so many seconds later. `make=FILE` is `from=FILE` without the start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from contract.guests import NODES, answers, note, recall
from contract.labs import DILATION, Lab, make_lab

from lab import process
from lab.boxes import incoming, store
from lab.boxes.manifest import CONTENTS, DISK, MANIFEST, Box, describe_file, read_box, write_manifest
from lab.bundles import import_lab
from lab.bundles.export_lab import keep_snapshots, kept, write_bundle
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.format import disk_member
from lab.bundles.import_lab import Request, create_from_bundle, plan_of
from lab.bundles.writer import Writer
from lab.cluster.acts.power import PowerResult
from lab.cluster.lab import Lab as ClusterLab
from lab.cluster.secrets import load_or_make
from lab.components.kubernetes import DEFAULT
from lab.disks import images
from lab.errors import LabError
from lab.host.network import enter_host_network
from lab.host.profile import HostProfile
from lab.machines.captures import PartKind
from lab.machines.libvirt.disk_import import DiskImport
from lab.machines.libvirt.machines import LibvirtMachines
from lab.machines.libvirt.volumes import LAYER, LayerStore
from lab.machines.providers import open_machines
from lab.machines.vagrant.command import Vagrant
from lab.plan.file import from_json, to_json
from lab.plan.names import domain_name
from lab.snapshots.commands import restore, take
from lab.store import Home
from lab.waiting import Deadline, poll

SECONDS = 300
SEAT = 4
# klab's own steps, and where they are done.
CALLS: dict[str, tuple[Any, str]] = {
    "begin": (Writer, "begin"),
    "add": (Writer, "add"),
    "seal": (Writer, "seal"),
    "verify": (BundleFile, "verify"),
    "put": (import_lab, "put"),
    "write": (BundleFile, "write"),
    "wrap": (incoming, "write_libvirt_box"),
    "folder": (import_lab, "_write_folder"),
    "secrets": (import_lab, "_write_secrets"),
    "make": (DiskImport, "make"),
    "place": (DiskImport, "_place"),
    "define": (LayerStore, "define"),
    "start": (import_lab, "start"),
}


def say(what: str, value: object) -> None:
    print(json.dumps([what, value]), flush=True)  # noqa: T201 - its parent reads this


def kill_at(words: str) -> None:
    """Die at a call: CALL, CALL:N for the Nth, +SECONDS after."""
    call, _, after = words.partition("+")
    name, _, number = call.partition(":")
    owner, method = CALLS[name]
    original, left = getattr(owner, method), int(number or 1)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def called(*args: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            threading.Timer(float(after), die).start() if after else die()
        return original(*args, **options)

    setattr(owner, method, called)


def shelved(home: Home, box: Path) -> Box:
    """The tiny box as `klab box build` would have left it."""
    name, digest = f"tiny-k8s-{DEFAULT}", store.digest_file(box.parent / DISK)
    folder = store.folder_of(home, name, digest)
    if not (folder / MANIFEST).exists():
        folder.mkdir(parents=True)
        shutil.copyfile(box.parent / DISK, folder / DISK)
        (folder / CONTENTS).write_text("nothing\n")
        files = {file.name: describe_file(file) for file in folder.iterdir()}
        write_manifest(Box(name, digest, "i", DEFAULT, "tiny", 1.0, 1024, folder, files))
    return read_box(folder)


def made(home: Home, name: str, box: Path) -> Lab:
    lab = make_lab(home, name, nodes=2, provider="libvirt", box=box, seat=SEAT)
    if not (lab.folder.path / "plan.json").exists():
        shelf = shelved(home, box)
        (lab.folder.path / "plan.json").write_text(to_json(lab.plan))
        (lab.folder.path / "scenario.yaml").write_text("version: 1\n")
        lab.folder.update_record(box=shelf.folder.name)
        load_or_make(lab.folder)
    return lab


def from_checkpoint(home: Home, name: str, file: Path) -> import_lab.Made:
    found = open_bundle(file)
    profile = HostProfile(accelerated=False, dilation=DILATION)
    plan = plan_of(found.bundle, name)
    lab = ClusterLab(home, home.lab(plan.name), plan, open_machines, SECONDS)
    return create_from_bundle(Request(lab, found, "libvirt", profile))


def same(lab: Lab, machines: LibvirtMachines, file: Path) -> list[str]:
    """The nodes whose disks are, to the byte, those in a bundle."""
    found, store, copy = open_bundle(file), LayerStore(machines._resources()), lab.folder.path / "copy.qcow2"
    equal = []
    for node in lab.plan.nodes:
        layer = f"{domain_name(lab.plan, node.name)}{LAYER}"
        found.write(found.bundle.member(disk_member(node.name)), copy, lambda _size: None)
        images.lay_on(copy, store.base(layer))
        if process.run(["qemu-img", "compare", "-q", copy, store.path(layer)], timeout=60, check=False).code == 0:
            equal.append(node.name)
    copy.unlink()
    return equal


def opened(home: Home, name: str) -> Lab:
    """The lab as it stands on disk."""
    folder = home.lab(name)
    return Lab(home, folder, from_json((folder.path / "plan.json").read_text()), None)


def main() -> None:
    root, name, box, *steps = sys.argv[1:]
    home = Home(Path(root))
    enter_host_network(home)
    for step in steps:
        word, _, about = step.partition("=")
        try:
            _do(home, name, Path(box), word, about)
        except LabError as error:
            say("error", [type(error).__name__, error.message, *error.details])


def _do(home: Home, name: str, box: Path, word: str, about: str) -> None:
    match word:
        case "kill":
            kill_at(about)
            return
        case "up":
            lab = made(home, name, box)
            lab = Lab(home, lab.folder, lab.plan, shelved(home, box).vagrant_box)
            machines = lab.open()
            machines.up(Deadline.after(SECONDS), print)
            machines.drop_seeds()
            lab.folder.update_record(phase="ready")
            return
        case "from":
            done = from_checkpoint(home, name, Path(about))
            say(word, [done.already, sorted(done.power.running)])
            return
        case "make":
            import_lab._start = lambda _request: PowerResult((), (), lost_quorum=False, seconds=0.0)
            say(word, from_checkpoint(home, name, Path(about)).already)
            return
        case "exists":
            say(word, home.lab(name).exists)
            return
        case "boxes":
            say(word, [each.digest for each in store.list_boxes(home)])
            return
        case "kept":
            say(word, [str(file) for file in kept(home)])
            return
    lab = opened(home, name)
    machines = lab.open()
    desk = ClusterLab(home, lab.folder, lab.plan, open_machines)
    match word:
        case "note":
            note(machines, about)
        case "disks":
            # Of their disks alone: RAM is empty after a boot.
            texts = [recall(machines, node)[PartKind.DISK] for node in NODES]
            say(word, sorted({text.partition(" of ")[0] for text in texts}))
        case "same":
            assert isinstance(machines, LibvirtMachines)
            say(word, same(lab, machines, Path(about)))
        case "checkpoint":
            say(word, write_bundle(desk, "lesson", Path(about), replaces=True).size)
        case "take":
            take(desk, about)
        case "restore":
            restore(desk, about)
        case "up again":
            machines.up(Deadline.after(SECONDS), print)
        case "keep":
            say(word, [str(each.path) for each in keep_snapshots(desk)])
        case "stop":
            machines.stop(NODES, Deadline.after(SECONDS))
        case "start":
            machines.start(NODES)
            for node in NODES:
                poll(lambda n=node: answers(machines, n), Deadline.after(SECONDS))  # type: ignore[misc]
        case "states":
            say(word, sorted({state.value for state in machines.states().values()}))
        case "vagrant":
            say(word, Vagrant(lab.folder.path).status())
        case "destroy":
            machines.destroy(print)
            say("leftovers", machines.leftovers())
            lab.folder.remove()


if __name__ == "__main__":
    main()
