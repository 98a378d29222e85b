"""Masters of linked clones, over the stand-in for VBoxManage."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.vbox_lab import Programs
from support.vboxmanage import VirtualBox
from support.vmdks import write_vmdk

from lab import process
from lab.boxes.vagrant import write_virtualbox_box
from lab.errors import HostError
from lab.machines.providers import provider_named
from lab.machines.vagrant import vagrant_home
from lab.store import Home


@pytest.fixture
def virtualbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VirtualBox:
    """One with the master of a box, which Vagrant remembers."""
    made = VirtualBox.make(tmp_path / "vbox")

    entry = vagrant_home.vagrant_home() / "boxes" / "klab-VAGRANTSLASH-deb-1a2b-virtualbox-20g" / "0" / "virtualbox"
    entry.mkdir(parents=True)
    write_vmdk(tmp_path / "disk.vmdk", 20)
    write_virtualbox_box(tmp_path / "disk.vmdk", tmp_path / "a.box", 20 << 10)
    process.run(["tar", "-xf", str(tmp_path / "a.box"), "-C", str(entry)], timeout=60)
    disk = str(made.folder / "machines" / "master" / "disk.vmdk")
    words = ["--vsys", "0", "--vmname", "master", "--vsys", "0", "--unit", "9", "--disk", disk]
    assert made.run(["import", str(entry / "box.ovf"), *words]).code == 0
    (entry / "master_id").write_text(made.machines["master"]["uuid"])
    monkeypatch.setattr(process, "run", Programs(made).run)
    monkeypatch.setattr(process, "have", lambda program: program == "VBoxManage")
    return made


def forget() -> None:
    provider_named("virtualbox").forget_box(Home(Path("/nowhere")), "deb@1a2b")


def clone(virtualbox: VirtualBox) -> None:
    assert virtualbox.run(["snapshot", "master", "take", "base"]).code == 0
    words = ["--register", "--name", "node", "--snapshot", "base", "--options", "link"]
    assert virtualbox.run(["clonevm", "master", *words]).code == 0


def test_it_goes_with_its_disk_and_vagrants_entry(virtualbox: VirtualBox) -> None:
    forget()
    assert (virtualbox.machines, virtualbox.media) == ({}, [])
    assert vagrant_home.entries("deb@1a2b", "virtualbox*") == []
    forget()


def test_one_whose_clones_are_gone_goes_with_its_snapshot(virtualbox: VirtualBox) -> None:
    clone(virtualbox)
    assert virtualbox.run(["unregistervm", "node", "--delete"]).code == 0
    forget()
    assert (virtualbox.machines, virtualbox.media) == ({}, [])


def test_one_that_machines_were_made_from_stays_whole(virtualbox: VirtualBox) -> None:
    clone(virtualbox)
    before = virtualbox.machines
    forget()
    assert virtualbox.machines == before
    assert vagrant_home.entries("deb@1a2b", "virtualbox*")


def test_one_that_runs_is_named(virtualbox: VirtualBox) -> None:
    virtualbox.set_state("master", "running")
    with pytest.raises(HostError, match="'master' cannot be removed from VirtualBox") as caught:
        forget()
    assert "unregistervm" in caught.value.hint


@pytest.mark.parametrize("content", ["", "../../etc", "{11111111-1111-1111-1111-111111111111}"])
def test_what_is_no_id_is_no_machine(virtualbox: VirtualBox, content: str) -> None:
    (file,) = vagrant_home.vagrant_home().rglob("master_id")
    file.write_text(content)
    forget()
    assert list(virtualbox.machines) == ["master"]


def test_without_virtualbox_only_the_entry_goes(virtualbox: VirtualBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "have", lambda _program: False)
    forget()
    assert list(virtualbox.machines) == ["master"]
    assert vagrant_home.entries("deb@1a2b", "virtualbox*") == []
