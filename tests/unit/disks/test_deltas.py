"""Disks that go to another machine and come from one: the same bytes again, and nothing that names a file of a host."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.disks import deltas, images
from lab.errors import MachineError, NotFound
from lab.machines.disk_transfer import Incoming
from lab.machines.libvirt import disk_transfer as module
from lab.machines.libvirt import own_files
from lab.machines.libvirt.capture_index import CaptureIndex, Entry, Saved
from lab.machines.libvirt.disk_import import DiskImport
from lab.machines.libvirt.disk_transfer import LibvirtDiskTransfer
from lab.machines.libvirt.provision import Provision
from lab.machines.ownership import Owner
from lab.machines.ssh import Ssh
from lab.machines.vagrant.command import Vagrant
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.domain import LibvirtFacts, domain_spec
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import Home, LabFolder, Record

MIB = 1 << 20


def qemu(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def layer(file: Path, below: Path | None = None, size: str = "16M") -> Path:
    lies = [] if below is None else ["-F", "qcow2", "-b", below]
    qemu("qemu-img", "create", "-q", "-f", "qcow2", *lies, file, *([size] if below is None else []))
    return file


def put(file: Path, *writes: tuple[int, str]) -> None:
    """Write a megabyte of a byte at each of these megabytes."""
    for at, byte in writes:
        qemu("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} {at}M 1M", file)


def content(file: Path) -> bytes:
    raw = file.with_name(f"{file.name}.raw")
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, raw)
    return raw.read_bytes()


@dataclass
class Disks:
    """A box and two layers over it; the upper one is what a node sees."""

    box: Path
    lower: Path
    upper: Path

    @property
    def files(self) -> list[Path]:
        return [self.box, self.lower, self.upper]


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    box = layer(tmp_path / "box.img")
    put(box, (0, "1"), (1, "1"), (2, "1"), (3, "1"))
    lower = layer(tmp_path / "klab-demo_w1.img", box)
    put(lower, (1, "2"), (8, "2"))
    upper = layer(tmp_path / "klab-demo_w1.0a.img", lower)
    # One that differs, one that is as in the box again, one of zeros where the box has none.
    put(upper, (2, "3"), (1, "1"), (3, "0"), (8, "4"))
    return Disks(box, lower, upper)


def test_all_layers_become_one_over_the_box(disks: Disks, tmp_path: Path) -> None:
    before = [file.read_bytes() for file in disks.files]
    target = tmp_path / "away" / "w1.qcow2"
    target.parent.mkdir()
    deltas.write(disks.upper, disks.box, target)
    assert [file.read_bytes() for file in disks.files] == before
    deltas.refuse_strange(target)
    told = json.loads(qemu("qemu-img", "info", "--output=json", target))
    assert "backing-filename" not in told
    assert str(tmp_path).encode() not in target.read_bytes()
    assert target.stat().st_size < 4 * MIB, "what is as in the box is not in it"
    # Elsewhere the same box has another name.
    elsewhere = disks.box.rename(tmp_path / "other.img")
    images.lay_on(target, elsewhere)
    seen = content(target)
    assert [seen[at * MIB] for at in (0, 1, 2, 3, 4, 8)] == [1, 1, 3, 0, 0, 4]
    assert len(seen) == 16 * MIB


def test_what_was_there_under_its_name_goes(disks: Disks, tmp_path: Path) -> None:
    target = tmp_path / "w1.qcow2"
    target.write_bytes(b"half of an older one")
    with pytest.raises(MachineError, match="klab did not write"):
        deltas.refuse_strange(target)
    deltas.write(disks.lower, disks.box, target)
    deltas.refuse_strange(target)
    assert b"half of an older one" not in target.read_bytes()


# --- what may come ------------------------------------------------------------------------------------


def changed(at: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda header: struct.pack_into(form, header, at, value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (changed(0, ">I", 0x4B444D56), "not a qcow2"),
        (changed(4, ">I", 2), "version is 2"),
        (changed(8, ">Q", 1000), "names a backing file"),
        (changed(32, ">I", 1), "encrypted"),
        (changed(60, ">I", 1), "snapshots inside"),
        (changed(72, ">Q", 1 << 2), "0x4"),  # an external data file
        (changed(72, ">Q", 1 << 1), "0x2"),  # corrupt
        (lambda header: header.clear(), "not a qcow2"),
        (changed(20, ">I", 60), "qemu-img refuses it"),  # clusters of an exbibyte
    ],
)
def test_a_disk_that_klab_has_not_written(tmp_path: Path, change: Callable[[bytearray], None], why: str) -> None:
    file = layer(tmp_path / "disk.qcow2")
    header = bytearray(file.read_bytes())
    deltas.refuse_strange(file)
    change(header)
    file.write_bytes(header)
    with pytest.raises(MachineError) as caught:
        deltas.refuse_strange(file)
    assert why in caught.value.details[0]


def test_one_that_names_a_file_of_this_host(tmp_path: Path) -> None:
    with pytest.raises(MachineError):
        deltas.refuse_strange(layer(tmp_path / "disk.qcow2", layer(tmp_path / "secret")))


# --- export -------------------------------------------------------------------------------------------


@dataclass
class Store:
    """A pool's files, as `lab.machines.libvirt.volumes.LayerStore` shows them."""

    folder: Path
    disks: Disks
    direct: bool = True
    fetched: int = 0

    def __call__(self, _resources: object) -> Store:
        return self

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def chain(self, name: str) -> list[str]:
        names = [self.disks.upper.name, self.disks.lower.name]
        return names[names.index(name) :]

    def base(self, _layer: str) -> Path:
        return self.disks.box

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def content(self, name: str) -> Iterator[tuple[int, bytes]]:
        self.fetched += 1
        return images.stretches(self.folder / name)


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    return decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)


class NoSession:
    """The way to libvirt's things, where a store stands in for them."""

    def resources(self) -> None: ...


@pytest.fixture
def transfer(tmp_path: Path, plan: Plan, disks: Disks) -> LibvirtDiskTransfer:
    index = CaptureIndex(tmp_path / "captures")
    saved = Saved(disks.upper.name, "", "<domain/>", "demo-w1 ssh-ed25519 AAAA\n")
    index.write(Entry("one", 1.0, {"w1": saved}))
    home, record = Home(tmp_path), Record("id", "demo", "libvirt", "box", 0, "ready", 0.0)
    folder = LabFolder(tmp_path)
    provision = Provision(home, folder, plan, record, None, NoSession(), Ssh(home.lab("demo"), plan), Vagrant)  # type: ignore[arg-type]
    assert provision.index.entry("one") == index.entry("one")
    return LibvirtDiskTransfer(provision)


def test_a_captures_disk(
    transfer: LibvirtDiskTransfer, disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, disks)
    monkeypatch.setattr(module, "LayerStore", store)
    target = tmp_path / "w1.qcow2"
    transfer.export("w1", disks.box, target, "one")
    images.lay_on(target, disks.box)
    assert content(target) == content(disks.upper)
    assert transfer.host_key("w1", "one") == "ssh-ed25519 AAAA\n"
    assert transfer.size_estimate("w1", "one") == sum(file.stat().st_size for file in (disks.lower, disks.upper))
    assert store.fetched == 0
    with pytest.raises(MachineError, match="does not hold cp1"):
        transfer.export("cp1", disks.box, target, "one")
    with pytest.raises(NotFound):
        transfer.size_estimate("w1", "two")


def test_a_klab_that_may_not_read_the_pool_fetches_the_layers(
    transfer: LibvirtDiskTransfer, disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, disks)
    monkeypatch.setattr(module, "LayerStore", store)
    monkeypatch.setattr(own_files, "readable", lambda file: file.parent != tmp_path)
    own = tmp_path / "boxes" / "disk.qcow2"
    own.parent.mkdir()
    own.write_bytes(disks.box.read_bytes())
    target = tmp_path / "away" / "w1.qcow2"
    target.parent.mkdir()
    taken: list[int] = []
    assemble = deltas.write

    def write(*files: Path) -> None:
        assemble(*files)
        taken.append(sum(file.stat().st_blocks * 512 for file in target.parent.iterdir()))

    monkeypatch.setattr(module.deltas, "write", write)
    transfer.export("w1", own, target, "one")
    assert 0 < taken[0] <= 2 * transfer.size_estimate("w1", "one"), "the copies of the layers included"
    assert store.fetched == 2
    assert [file.name for file in target.parent.iterdir()] == ["w1.qcow2"]
    images.lay_on(target, disks.box)
    assert content(target) == content(disks.upper)


@pytest.mark.parametrize("readable", [True, False])
def test_a_node_of_another_box_than_the_labs_first_one(
    transfer: LibvirtDiskTransfer, disks: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """It has joined after an upgrade; whoever imports the bundle has the first box alone."""
    first, folder = layer(tmp_path / "first.qcow2"), "debian-13-k8s-1.36.3@0123456789ab"
    put(first, (0, "7"), (3, "1"), (9, "7"))
    own = tmp_path / "boxes" / folder / "disk.qcow2"
    own.parent.mkdir(parents=True)
    own.write_bytes(disks.box.read_bytes())
    provision = transfer._provision
    transfer = LibvirtDiskTransfer(replace(provision, record=replace(provision.record, more_boxes=(folder,))))
    base = tmp_path / module.base_volume(module.box_name(folder))
    base.hardlink_to(disks.box)
    store = Store(tmp_path, disks)
    store.base = lambda _layer: base  # type: ignore[method-assign]
    monkeypatch.setattr(module, "LayerStore", store)
    if not readable:
        monkeypatch.setattr(own_files, "readable", lambda file: file.parent != tmp_path)
    target = tmp_path / "w1.exported"
    transfer.export("w1", first, target, "one")
    images.lay_on(target, first)
    assert content(target) == content(disks.upper)


# --- adopt --------------------------------------------------------------------------------------------

FACTS = LibvirtFacts(
    "box", "1", "klab lab x", "default", "klab-x", "/pool", "/pool/consoles", "pc-q35-10.0", accelerated=True
)


class Pool:
    """Where machines are made: a folder, and the definitions that libvirt was given."""

    def __init__(self, folder: Path, *, direct: bool) -> None:
        self.folder, self.direct = folder, direct
        self.defined: list[str] = []
        self.pool = self

    def find(self) -> Pool:
        return self

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def refresh(self) -> None:
        pass

    def define(self, xml: str) -> None:
        assert list(self.folder.glob("klab-demo_w1.img")), "a machine exists only with its disk"
        self.defined.append(xml)


@pytest.mark.parametrize("direct", [True, False])
def test_a_machine_is_made_of_a_disk(
    disks: Disks, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    sent = tmp_path / "sent.qcow2"
    deltas.write(disks.upper, disks.box, sent)
    seen = content(disks.upper)
    disks.lower.unlink()
    scratch, pool = tmp_path / "scratch", Pool(tmp_path / "pool", direct=direct)
    for folder in (scratch, pool.folder):
        folder.mkdir()
    uploads: list[str] = []

    def upload(_pool: object, name: str, file: Path) -> None:
        uploads.append(name)
        (pool.folder / name).write_bytes(file.read_bytes())

    monkeypatch.setattr("lab.machines.libvirt.transfer.upload", upload)
    owner = Owner("cb7b241c-70ce-456d-a4d8-2e6b37ed0cff", 0, 1.0)
    made = DiskImport(pool, owner, disks.box, scratch)  # type: ignore[arg-type]
    spec = domain_spec(plan, plan.known("w1"), FACTS)

    def write(target: Path) -> None:
        target.write_bytes(sent.read_bytes())

    made.make(spec, Incoming("", write))
    disk = pool.folder / "klab-demo_w1.img"
    assert content(disk) == seen
    assert str(disk) in pool.defined[0]
    assert (uploads == []) is direct
    assert list(scratch.iterdir()) == []

    def strange(target: Path) -> None:
        layer(target, disks.box)

    def full(_target: Path) -> Any:
        raise OSError(28, "No space left on device")

    for bad, why in ((strange, "klab did not write"), (full, "cannot be written")):
        with pytest.raises(MachineError, match=why):
            made.make(spec, Incoming("", bad))
        assert len(pool.defined) == 1
        there = {file.name for folder in (scratch, pool.folder) for file in folder.iterdir()}
        assert there == {disk.name, f"{disk.name}.raw"}
