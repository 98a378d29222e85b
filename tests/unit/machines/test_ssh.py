"""By which key ssh knows a node: kept by the node's name, and never that of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import process
from lab.machines.ssh import Ssh
from lab.plan.decide import decide
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import Home


@pytest.fixture
def ssh(tmp_path: Path, catalog: Catalog) -> Ssh:
    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=10)), catalog)
    folder = Home(tmp_path).lab("demo")
    folder.ssh_key.parent.mkdir(parents=True)
    return Ssh(folder, plan)


@pytest.fixture
def known(ssh: Ssh, tmp_path: Path) -> Path:
    return Home(tmp_path).lab("demo").ssh_key.parent / "known_hosts"


def test_nobody_is_known_yet(ssh: Ssh, known: Path) -> None:
    assert ssh.host_keys("w1") == ""
    ssh.forget_host_key("w1")
    assert not known.exists()


def test_host_keys_are_those_of_one_node(ssh: Ssh, known: Path) -> None:
    known.write_text("demo-w1 key one\ndemo-w10 key ten\ndemo-w1 key two\n")
    assert ssh.host_keys("w1") == "demo-w1 key one\ndemo-w1 key two\n"
    ssh.know("w1", "demo-w1 key three\n")
    assert sorted(known.read_text().splitlines()) == ["demo-w1 key three", "demo-w10 key ten"]
    ssh.forget_host_key("w10")
    assert known.read_text() == "demo-w1 key three\n"


def test_the_file_is_left_alone_where_nothing_changes(ssh: Ssh, known: Path) -> None:
    known.write_text("demo-w1 key one\n")
    before = known.stat().st_ino
    ssh.know("w1", "demo-w1 key one\n")
    assert known.stat().st_ino == before


def test_another_lab_knows_a_node_by_the_same_keys(ssh: Ssh, known: Path) -> None:
    bare = ssh.bare_host_keys("other-w1 key one\nother-w1 key two\n")
    assert bare == "key one\nkey two\n"
    ssh.know_by("w1", bare)
    assert ssh.host_keys("w1") == "demo-w1 key one\ndemo-w1 key two\n"
    ssh.know_by("w1", "")
    assert ssh.host_keys("w1") == ""


@pytest.mark.parametrize("name", ["a b", 'a"b', "it's", "a\\b", 'a\\"b', "a#b", "a$b", "a%b", "$(x)", "a\\"])
def test_ssh_finds_its_files_in_a_folder_of_any_name(tmp_path: Path, catalog: Catalog, name: str) -> None:
    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)
    folder = Home(tmp_path / name).lab("demo")
    *command, _ = Ssh(folder, plan).argv("w1", ["true"])[:-1]
    words = [*command[:1], "-G", *command[1:]]
    lines = process.run(words, timeout=60).stdout.splitlines()
    shown = dict(line.split(" ", 1) for line in lines)
    assert shown["userknownhostsfile"] == str(folder.ssh_key.parent / "known_hosts")
    assert shown["identityfile"].replace("%%", "%") == str(folder.ssh_key)
