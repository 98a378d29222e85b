from __future__ import annotations

import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from lab.errors import HostError
from lab.machines.vagrant import command as vagrant
from lab.process import Completed


def test_without_vagrant_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant.shutil, "which", lambda _program: None)
    with pytest.raises(HostError) as caught:
        vagrant.Vagrant(tmp_path)
    assert "apt-get install vagrant" in caught.value.hint


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vagrant.Vagrant:
    monkeypatch.setattr(vagrant.shutil, "which", lambda _program: "/usr/bin/vagrant")
    return vagrant.Vagrant(tmp_path)


def test_python_vagrants_commands_go_through_klabs_door(
    project: vagrant.Vagrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def run(argv: list[str], **_options: object) -> Completed:
        seen.append(argv)
        return Completed(tuple(argv), 0, "1,,box-name,klab/a\n1,,box-provider,libvirt\n1,,box-version,1.0.0\n", "")

    monkeypatch.setattr(vagrant.process, "run", run)
    assert project.boxes() == {"klab/a"}
    assert seen == [["vagrant", "box", "list", "--machine-readable"]]


def test_a_box_holds_a_link_instead_of_gigabytes(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    disk.write_bytes(b"x" * 1_000_000)
    vagrant._write_box(tmp_path / "a.box", [("metadata.json", b"{}"), ("box.img", disk)])
    with tarfile.open(tmp_path / "a.box") as box:
        assert box.getmember("box.img").linkname == str(disk)
    assert (tmp_path / "a.box").stat().st_size < 20_000


def test_a_box_that_vagrant_has_is_not_added_again(
    project: vagrant.Vagrant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []

    def run(argv: list[str], **_options: object) -> Completed:
        seen.append(" ".join(argv[:3]))
        return Completed(tuple(argv), 0, "", "")

    monkeypatch.setattr(vagrant.process, "run", run)
    files: list[tuple[str, bytes | Path]] = [("metadata.json", b"{}"), ("box.img", tmp_path / "disk.qcow2")]
    project.add_box("klab/x", "libvirt", files, tmp_path / "scratch")
    assert seen == ["vagrant box add"]
    held = vagrant.vagrant_home.vagrant_home() / "boxes" / "klab-VAGRANTSLASH-x" / vagrant.BOX_VERSION / "libvirt"
    held.mkdir(parents=True)
    for name, _ in files:
        (held / name).touch()
    project.add_box("klab/x", "libvirt", files, tmp_path / "scratch")
    assert seen == ["vagrant box add"], "nor is Vagrant asked for it, which takes seconds to begin"


def test_two_klabs_at_the_same_time_add_a_box_once(
    project: vagrant.Vagrant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files: list[tuple[str, bytes | Path]] = [("metadata.json", b"{}")]
    seen: list[str] = []
    begun, both = threading.Event(), threading.Event()

    def run(argv: list[str], **_options: object) -> Completed:
        seen.append(" ".join(argv[:3]))
        begun.set()
        both.wait(30)  # until the other has seen that the box is not there
        held = vagrant.vagrant_home.vagrant_home() / "boxes" / "klab-VAGRANTSLASH-x" / vagrant.BOX_VERSION / "libvirt"
        held.mkdir(parents=True)
        (held / "metadata.json").touch()
        return Completed(tuple(argv), 0, "", "")

    holds = vagrant.vagrant_home.holds

    def look(*words: Any) -> bool:
        found = holds(*words)
        if begun.is_set():
            both.set()
        return found

    def add() -> None:
        project.add_box("klab/x", "libvirt", files, tmp_path / "scratch")

    monkeypatch.setattr(vagrant.process, "run", run)
    monkeypatch.setattr(vagrant.vagrant_home, "holds", look)
    first = threading.Thread(target=add)
    first.start()
    assert begun.wait(30)
    add()
    first.join()
    assert seen == ["vagrant box add"]


def test_up_passes_the_names_to_vagrant(project: vagrant.Vagrant, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def run(argv: list[str], **_options: object) -> Completed:
        seen.append(argv)
        return Completed(tuple(argv), 0, "", "")

    monkeypatch.setattr(vagrant.process, "run", run)
    project.up("libvirt", 1.0, print, ["cp1", "db1"])
    assert seen == [["vagrant", "up", "cp1", "db1", "--provider", "libvirt", "--no-provision", "--no-destroy-on-error"]]


def test_a_persons_own_variables_do_not_lead_to_other_machines(
    project: vagrant.Vagrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {
        "VAGRANT_VAGRANTFILE": "Other",
        "VAGRANT_DOTFILE_PATH": "/all",
        "VAGRANT_NO_PLUGINS": "1",
        "VAGRANT_LOG": "debug",
    }
    kept = {"VAGRANT_HOME": "/boxes", "VAGRANTFILE_OF_NO_CONCERN": "1"}
    for name, value in {**own, **kept, "VAGRANT_CWD": "/elsewhere"}.items():
        monkeypatch.setenv(name, value)
    changes = vagrant.environment(project.folder)
    found = {name: value for name, value in {**os.environ, **changes}.items() if name.startswith("VAGRANT") and value}
    assert found == {**kept, **vagrant.ENVIRONMENT, "VAGRANT_CWD": str(project.folder), "VAGRANT_LOG": "debug"}
    started: list[dict[str, str | None]] = []

    def run(argv: list[str], *, env: dict[str, str | None], **_options: object) -> Completed:
        started.append(env)
        return Completed(tuple(argv), 0, "", "")

    monkeypatch.setattr(vagrant.process, "run", run)
    project.run(["up"])
    assert {started[0][name] for name in own} == {None}, "its log would be taken for its errors"
