"""Vagrant itself, on what could make a lab another one; no machine is made.

Names that could be the beginning of a machine's id, and a Vagrantfile of the person's own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.domain import LibvirtFacts
from lab.render.vagrantfile import GUARD, render_libvirt
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario

FACTS = LibvirtFacts(
    box="none",
    box_version="",
    description="a lab of this test",
    box_pool="default",
    lab_pool="klab-test",
    seed_folder="/nowhere",
    console_folder="/nowhere/consoles",
    machine_type="pc-q35-10.0",
    accelerated=True,
)
OTHER = 'Vagrant.configure("2") { |config| config.vm.define "other" }\n'


def plan_of(*names: str) -> Plan:
    nodes = ", ".join(f"{{name: {name}, role: {'worker' if i else 'control-plane'}}}" for i, name in enumerate(names))
    catalog = load_catalog()
    return decide(parse_scenario(f"version: 1\nname: a\ntopology: {{nodes: [{nodes}]}}\n", catalog), catalog)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab with the nodes db1 and w1, beside a project whose only machine has an id that begins with db1."""
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "home"))
    lab, other, index = tmp_path / "a", tmp_path / "b", tmp_path / "home" / "data" / "machine-index" / "index"
    for folder in (lab / "ssh", other / ".vagrant", index.parent):
        folder.mkdir(parents=True)
    (lab / "ssh" / "id_ed25519").touch()
    (lab / "Vagrantfile").write_text(render_libvirt(plan_of("db1", "w1"), FACTS))
    (other / "Vagrantfile").write_text(OTHER)
    machine = {
        "name": "other",
        "provider": "libvirt",
        "state": "running",
        "local_data_path": str(other / ".vagrant"),
        "vagrantfile_path": str(other),
        "vagrantfile_name": None,
        "updated_at": None,
        "extra_data": {},
    }
    index.write_text(json.dumps({"version": 1, "machines": {f"db1{'0' * 29}": machine}}))
    return lab


def status(project: Path, *names: str) -> list[str]:
    """The machines that Vagrant takes these names for; without names, those of the whole project."""
    environment = {
        **os.environ,
        "VAGRANT_CWD": str(project),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    }
    done = subprocess.run(
        ["/usr/bin/vagrant", "status", *names, "--machine-readable"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    fields = (line.split(",") for line in done.stdout.splitlines())
    return [field[1] for field in fields if field[2] == "state"]


def test_a_node_is_itself_whatever_ids_begin_with(project: Path) -> None:
    assert status(project, "db1") == ["db1"]
    assert status(project) == ["db1", "w1"]


def test_an_id_still_leads_to_its_machine(project: Path) -> None:
    assert status(project, "db10") == ["other"]


def test_without_the_guard_vagrant_takes_the_name_for_an_id(project: Path) -> None:
    file = project / "Vagrantfile"
    file.write_text(file.read_text().replace(GUARD, "nothing_of_vagrants"))
    assert status(project, "db1") == ["other"]
    assert status(project, "/^db1$/") == ["other"]


def test_a_lab_without_such_names_has_an_ordinary_vagrantfile() -> None:
    assert GUARD not in render_libvirt(plan_of("cp1", "w1"), FACTS)


@pytest.fixture
def persons(project: Path) -> Path:
    """A Vagrantfile of the person's; returns the file that is there once Vagrant has taken over its configuration."""
    taken = project.parent / "taken"
    (project.parent / "home" / "Vagrantfile").write_text(
        f'Vagrant.configure("2") {{ |config| File.write("{taken}", ""); config.vm.define "of-the-person" }}\n'
    )
    return taken


def test_a_persons_own_vagrantfile_changes_no_lab(project: Path, persons: Path) -> None:
    assert status(project) == ["db1", "w1"]
    assert not persons.exists()


def test_a_persons_own_vagrantfile_holds_for_other_projects(project: Path, persons: Path) -> None:
    assert status(project, "db10") == ["other"]
    assert persons.exists()


def test_without_the_method_vagrant_takes_the_persons_vagrantfile_over(project: Path, persons: Path) -> None:
    file = project / "Vagrantfile"
    file.write_text(file.read_text().replace("define_method(:load)", "define_method(:nothing_of_vagrants)"))
    assert status(project) == ["of-the-person", "db1", "w1"]
