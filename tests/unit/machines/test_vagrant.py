from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab.errors import HostError, LabError
from lab.machines import vagrant
from lab.process import Completed


def sleeper(**variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/usr/bin/sleep", "60"], env={**os.environ, **variables}, start_new_session=True)


def test_only_what_klab_left_at_work_in_this_folder_is_ended(tmp_path: Path) -> None:
    orphan = sleeper(KLAB_VAGRANT=str(tmp_path))
    others = [
        sleeper(KLAB_VAGRANT=f"{tmp_path}2"),
        sleeper(VAGRANT_CWD=str(tmp_path)),  # a person's own
    ]
    try:
        vagrant.end_orphans(tmp_path)
        assert orphan.wait(timeout=10) == -9
        assert [other.poll() for other in others] == [None, None]
    finally:
        for child in (orphan, *others):
            child.kill()
            child.wait()


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


def test_a_box_whose_disk_is_gone_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path))
    folder = tmp_path / "boxes" / "klab-VAGRANTSLASH-x" / vagrant.BOX_VERSION / "libvirt"
    folder.mkdir(parents=True)
    (folder / "box.img").symlink_to(tmp_path / "disk.qcow2")
    assert not vagrant._is_whole("klab/x", "libvirt")
    (tmp_path / "disk.qcow2").touch()
    assert vagrant._is_whole("klab/x", "libvirt")


@pytest.fixture
def books(project: vagrant.Vagrant, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A project with machines cp1 and db1. Returns the commands that Vagrant is given; each fails."""
    given: list[list[str]] = []

    def run(argv: list[str], **_options: object) -> Completed:
        given.append(argv)
        return Completed(tuple(argv), 1, "", "")

    monkeypatch.setattr(vagrant.process, "run", run)
    (project.folder / "Vagrantfile").touch()
    for name in ("cp1", "db1"):
        (project.folder / ".vagrant" / "machines" / name).mkdir(parents=True)
    return given


def test_vagrant_forgets_the_machines_it_knows(project: vagrant.Vagrant, books: list[list[str]]) -> None:
    lines: list[str] = []
    vagrant.clear_books(project.folder, lambda: project, lines.append, ["cp1", "w1"])
    assert books == [["vagrant", "destroy", "-f", "cp1"]]
    assert lines == ["vagrant destroy ended with exit code 1; klab removes the rest itself"]


def test_vagrant_is_not_given_a_name_that_may_be_anothers_id(project: vagrant.Vagrant, books: list[list[str]]) -> None:
    """Vagrant 2.3.4 looks a name up among the ids of all projects' machines first, by their beginnings."""
    vagrant.clear_books(project.folder, lambda: project, print, ["db1"])
    assert books == []


def test_without_vagrant_klab_removes_everything_itself(project: vagrant.Vagrant, books: list[list[str]]) -> None:
    def missing() -> vagrant.Vagrant:
        raise LabError("vagrant is not installed")

    lines: list[str] = []
    vagrant.clear_books(project.folder, missing, lines.append, ["cp1"])
    assert lines == ["vagrant is not installed; klab removes the rest itself"]


def test_without_a_project_vagrant_has_no_books(project: vagrant.Vagrant, books: list[list[str]]) -> None:
    (project.folder / "Vagrantfile").unlink()
    vagrant.clear_books(project.folder, lambda: project, print, ["cp1"])
    assert books == []
