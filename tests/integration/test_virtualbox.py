"""VirtualBox from create to destroy: klab and the real Vagrant over a stand-in for VBoxManage (`support.vboxmanage`).

Vagrant evaluates the provider's block of the Vagrantfile here, and reaches each machine over ssh. Nothing of QEMU,
libvirt or KVM is within reach: the programs are not on the PATH, and libvirt's Python module cannot be imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.second_host import sshd
from support.shelved import shelved_box
from support.vbox_guests import NAMESPACES
from support.vboxmanage import VirtualBox, install
from support.vmdks import write_vmdk

import lab
from lab.boxes.manifest import VMDK, Box, describe_file, write_manifest
from lab.store import Home

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(shutil.which("vagrant") is None, reason="needs vagrant"),
    pytest.mark.incremental,
]
ROOT = Path(lab.__file__).parents[1]
HIDDEN = ("qemu", "kvm", "virsh", "virt-", "virtqemud", "libvirtd", "virtlogd")
SCENARIO = """version: 1
name: demo
topology:
  nodes:
  - {name: cp1, role: control-plane}
  - {name: w1, role: worker, disk: 12G}
cpus: 1
memory: 1024M
disk: 20G
bootstrap: none
"""
AGAIN = ("again.yaml", "--provider", "virtualbox")
START_SECONDS = 20.0
COMMAND_SECONDS = 900.0  # on a machine that others use, too


@dataclass(frozen=True)
class World:
    """A host with VirtualBox: its network, its programs, a home of klab's with a box."""

    folder: Path
    pid: int
    virtualbox: VirtualBox
    box: Box

    @property
    def home(self) -> Home:
        return Home(self.folder / "klab")

    def run(self, *words: str, code: int = 0) -> str:
        """What klab prints to these words; standard output and standard error."""
        environment = {
            "PATH": str(self.folder / "programs"),
            "HOME": str(self.folder / "person"),
            "KLAB_HOME": str(self.home.root),
            "PYTHONPATH": f"{self.folder / 'blocked'}:{ROOT}",
            "LANG": "C.UTF-8",
        }
        inside = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--pid", f"--wdns={self.folder}"]
        klab = [sys.executable, "-c", "from lab.cli.main import main; main()"]
        done = subprocess.run(
            [*inside, "--", *klab, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("virtualbox")
    assert request.config.cache is not None
    program = sshd(request.config.cache.mkdir("sshd"))
    guests = Path(__file__).parents[1] / "support" / "vbox_guests.py"
    for name in ("programs", "blocked", "guests", "person"):
        (folder / name).mkdir()
    for place in ("/usr/sbin", "/usr/bin"):
        for file in Path(place).iterdir():
            if not file.name.startswith(HIDDEN):
                with contextlib.suppress(FileExistsError):
                    (folder / "programs" / file.name).symlink_to(file)
    (folder / "blocked" / "libvirt.py").write_text('raise ImportError("it is not here")\n')
    guest = [sys.executable, "-I", str(guests), str(folder / "guests"), str(program)]
    virtualbox = VirtualBox.make(folder / "vbox", links=True, guest=guest)
    install(virtualbox.folder, folder / "programs")
    box = shelved_box(Home(folder / "klab"))
    write_vmdk(box.folder / VMDK)
    write_manifest(replace(box, files={**box.files, VMDK: describe_file(box.folder / VMDK)}))
    (folder / "demo.yaml").write_text(SCENARIO)
    (folder / "again.yaml").write_text(SCENARIO.replace("  - {name: w1, role: worker, disk: 12G}\n", ""))
    words = [
        "unshare",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--propagation",
        "private",
    ]
    with subprocess.Popen([*words, "sh", "-c", NAMESPACES, "sh", folder]) as child:
        try:
            end = time.monotonic() + START_SECONDS
            while not (folder / "ready").exists():
                assert child.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            (inside,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            yield World(folder, int(inside), virtualbox, box)
        finally:
            child.kill()


def states(world: World) -> dict[str, str]:
    """The lab's machines, by node."""
    found = world.virtualbox.machines.items()
    return {name.partition("_")[2]: machine["state"] for name, machine in found if name.startswith("klab-demo_")}


def masters(world: World) -> list[str]:
    """Vagrant's machines, whose disks the lab's lie on."""
    return [name for name in world.virtualbox.machines if not name.startswith("klab-demo_")]


def test_doctor_misses_nothing_but_what_boxes_are_built_with(world: World) -> None:
    lines = world.run("doctor", code=5).splitlines()
    assert [line.split()[0] for line in lines if "MISSING" in line] == ["qemu-img"]
    assert [line.split()[1:] for line in lines if line.startswith("VirtualBox")] == [["ok", "7.0.20"]]


def test_a_box_with_a_disk_of_each_size_is_made_without_qemu(world: World) -> None:
    shown = world.run("create", "demo.yaml", "--provider", "virtualbox")
    assert "w1: clean done" in shown
    assert states(world) == {"cp1": "running", "w1": "running"}
    assert len(masters(world)) == 2, "one for each size"
    sizes = {
        name: world.virtualbox.media_of(name)["size"] >> 30 for name in world.virtualbox.machines if "demo" in name
    }
    assert sizes == {"klab-demo_cp1": 20, "klab-demo_w1": 12}


def test_vagrant_has_evaluated_the_providers_block(world: World) -> None:
    machine = world.virtualbox.machines["klab-demo_cp1"]
    node = json.loads((world.home.lab("demo").path / "plan.json").read_text())["nodes"][0]
    assert (machine["memory"], machine["cpus"], machine["rtcuseutc"]) == (1024, 1, "on")
    assert machine["hardwareuuid"] == node["uuid"]
    assert machine["uart"] == str(world.home.lab("demo").logs / "console-cp1.log")
    assert machine["description"].startswith("klab lab ")
    nat, lab_network = machine["nics"]["1"], machine["nics"]["2"]
    assert (nat["type"], nat["mac"]) == ("nat", node["management_mac"].replace(":", "").upper())
    assert (lab_network["type"], lab_network["adapter"], lab_network["model"]) == ("hostonly", "vboxnet0", "virtio")
    assert machine["slots"]["1"] == {"type": "dvddrive", "medium": ""}, "the seed is ejected"


def test_snapshot_and_restore(world: World) -> None:
    world.run("snapshot", "one")
    assert states(world) == {"cp1": "running", "w1": "running"}
    world.run("restore", "one")
    assert states(world) == {"cp1": "running", "w1": "running"}
    shots = world.virtualbox.machines["klab-demo_w1"]["snapshots"]
    assert [bool(shot["saved"]) for shot in shots] == [True, True], "the automatic one, too"


def test_stop_and_start(world: World) -> None:
    world.run("stop", "demo")
    assert states(world) == {"cp1": "poweroff", "w1": "poweroff"}
    world.run("start", "demo")
    assert states(world) == {"cp1": "running", "w1": "running"}


def test_a_box_that_a_lab_uses_stays(world: World) -> None:
    assert "is in use" in world.run("box", "rm", world.box.name, code=4)
    assert len(masters(world)) == 2


def test_destroy_leaves_what_is_for_the_next_lab(world: World) -> None:
    world.run("destroy", "demo", "-y")
    assert states(world) == {}
    assert len(masters(world)) == 2
    assert {Path(medium["location"]).is_file() for medium in world.virtualbox.media} == {True}


def test_a_virtualbox_that_vagrant_does_not_know_is_refused_before_anything_is_made(world: World) -> None:
    world.virtualbox.change(version="7.3.0r180000")
    assert "this Vagrant does not know this VirtualBox" in world.run("create", *AGAIN, code=5)
    world.run("destroy", "demo", "-y")
    world.virtualbox.change(version="7.1.12r169651")
    assert "VirtualBox 7.1.12 needs Vagrant 2.4.2" in world.run("create", *AGAIN, code=5)
    assert not world.home.lab("demo").exists
    world.virtualbox.change(version="7.0.20r163906")


def test_kvm_in_the_way_is_named_with_its_repair(world: World) -> None:
    """The kernel of before 6.12 tells nothing beforehand; VirtualBox' error comes through Vagrant."""
    world.virtualbox.change(kvm="intel")
    told = world.run("create", *AGAIN, code=5)
    assert "KVM keeps the processor's virtualization from VirtualBox" in told
    assert "hint: sudo modprobe -r kvm_intel" in told
    assert states(world) == {"cp1": "poweroff"}
    world.virtualbox.change(kvm="")


def test_the_second_create_takes_the_interface_of_the_first(world: World) -> None:
    """Its route is still there: vboxnet0 with this very network."""
    world.run("create", *AGAIN)
    assert states(world) == {"cp1": "running"}
    calls = world.virtualbox.calls
    assert sum(words[:2] == ["hostonlyif", "create"] for words in calls) == 1
    assert sum(words[0] == "import" and words[1] != "-n" for words in calls) == 2, "the masters serve again"
    world.run("destroy", "demo", "-y")


def test_box_rm_removes_the_masters_with_their_disks(world: World) -> None:
    world.run("box", "rm", world.box.name)
    assert world.virtualbox.machines == {}
    assert world.virtualbox.media == []
    assert list((world.folder / "person" / ".vagrant.d" / "boxes").iterdir()) == []
