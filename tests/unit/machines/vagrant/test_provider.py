"""What libvirt and VirtualBox do in the same way, where it needs neither. Power: test_libvirt, test_virtualbox."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.machines.vagrant import command as vagrant
from lab.machines.vagrant import provider
from lab.process import Completed
from lab.render.vagrantfile import GUARD


def sleeper(**variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/usr/bin/sleep", "60"], env={**os.environ, **variables}, start_new_session=True)


def test_only_what_klab_left_at_work_in_this_folder_is_ended(tmp_path: Path) -> None:
    orphan = sleeper(KLAB_VAGRANT=str(tmp_path))
    others = [
        sleeper(KLAB_VAGRANT=f"{tmp_path}2"),
        sleeper(VAGRANT_CWD=str(tmp_path)),  # a person's own
    ]
    try:
        provider.end_orphans(tmp_path)
        assert orphan.wait(timeout=10) == -9
        assert [other.poll() for other in others] == [None, None]
    finally:
        for child in (orphan, *others):
            child.kill()
            child.wait()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vagrant.Vagrant:
    monkeypatch.setattr(vagrant.shutil, "which", lambda _program: "/usr/bin/vagrant")
    return vagrant.Vagrant(tmp_path)


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
    provider.forget_in_vagrant(project.folder, lambda: project, lines.append, ["cp1", "w1"])
    assert books == [["vagrant", "destroy", "-f", "cp1"]]
    assert lines == ["vagrant destroy ended with exit code 1; klab removes the rest itself"]


def test_vagrant_is_not_given_a_name_that_may_be_anothers_id(project: vagrant.Vagrant, books: list[list[str]]) -> None:
    """Vagrant 2.3.4 looks a name up among the ids of all projects' machines first, by their beginnings."""
    provider.forget_in_vagrant(project.folder, lambda: project, print, ["db1"])
    assert books == []
    (project.folder / "Vagrantfile").write_text(f"... {GUARD} ...")
    provider.forget_in_vagrant(project.folder, lambda: project, print, ["db1"])
    assert books == [["vagrant", "destroy", "-f", "db1"]]


def test_without_vagrant_klab_removes_everything_itself(project: vagrant.Vagrant, books: list[list[str]]) -> None:
    def missing() -> vagrant.Vagrant:
        raise LabError("vagrant is not installed")

    lines: list[str] = []
    provider.forget_in_vagrant(project.folder, missing, lines.append, ["cp1"])
    assert lines == ["vagrant is not installed; klab removes the rest itself"]


def test_without_a_project_vagrant_has_no_books(project: vagrant.Vagrant, books: list[list[str]]) -> None:
    (project.folder / "Vagrantfile").unlink()
    provider.forget_in_vagrant(project.folder, lambda: project, print, ["cp1"])
    assert books == []
