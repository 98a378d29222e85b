"""A lab of fake machines that can be written into a bundle: its box is in the store, its keys are made."""

from __future__ import annotations

from pathlib import Path

from lab import process
from lab.boxes import store
from lab.boxes.manifest import CONTENTS, DISK, KUBECTL, LIBVIRT, PACKAGES, Box, describe_file, write_manifest
from lab.cluster.admin_kubeconfig import write_kubeconfig
from lab.cluster.secrets import load_or_make
from lab.components.kubernetes import DEFAULT
from lab.machines.captures import PartKind
from lab.machines.fake.machines import FakeMachines
from lab.plan.model import Plan
from lab.store import Home, LabFolder

BOX_NAME = f"debian-13-k8s-{DEFAULT}"


def write_disk(file: Path, content: bytes = b"box") -> None:
    """A qcow2 image with that content, a hundred thousand times."""
    raw = file.with_suffix(".raw")
    raw.write_bytes(content * 100_000)
    process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, file], timeout=60)
    raw.unlink()


def shelved_box(home: Home, content: bytes = b"box") -> Box:
    """A box as a build leaves it, with a disk of that content, a hundred thousand times."""
    work = home.boxes / "making"
    work.mkdir(parents=True)
    write_disk(work / DISK, content)
    (work / LIBVIRT).write_bytes(b"the same, wrapped")
    (work / KUBECTL).write_bytes(b"a program")
    (work / PACKAGES).write_text("")
    (work / CONTENTS).write_text("a file\n")
    digest = store.digest_file(work / DISK)
    files = {file.name: describe_file(file) for file in sorted(work.iterdir())}
    folder = store.folder_of(home, BOX_NAME, digest)
    work.rename(folder)
    box = Box(BOX_NAME, digest, "inputs", DEFAULT, "debian-13", 1.0, 8192, folder, files)
    write_manifest(box)
    return box


def shelve(home: Home, folder: LabFolder, plan: Plan) -> Box:
    """Give a lab on disk what a real one has beside its machines; each disk holds its node's name."""
    box = shelved_box(home)
    folder.update_record(box=box.folder.name)
    (folder.path / "scenario.yaml").write_text("version: 1\nname: demo\n")
    load_or_make(folder)
    write_kubeconfig(folder, plan)
    machines = FakeMachines(home, folder, plan, folder.record(), None)
    for node in plan.nodes:
        machines.write(node.name, PartKind.DISK, f"disk of {node.name}")
    return box


def flipped(file: Path, at: int) -> None:
    """Change the lowest bit of a byte."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
