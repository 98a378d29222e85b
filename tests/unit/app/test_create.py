"""What is decided before a lab is made, and what a Ctrl-C leaves of one: which command continues with just that lab."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk

from lab.app import create
from lab.app.create import making, provider_for, scaled_plan
from lab.errors import Conflict, Interrupted
from lab.plan.changes import with_node
from lab.plan.file import to_json
from lab.plan.model import Plan, create_command, decide
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import Home, LabFolder, write_atomic

PLAIN = "version: 1\nname: plain\nbootstrap: none\ntopology: {control_planes: 1, workers: 1}\n"


def test_the_command_line_once_more_is_about_the_same_lab() -> None:
    assert create_command(["1m2w"], None) == "klab create 1m2w"
    assert create_command(["./my lesson.yaml"], "l3", 4) == "klab create './my lesson.yaml' --name l3 --seat 4"
    assert create_command(["--from", "my file.klab"], None) == "klab create --from 'my file.klab'"
    assert create.Request("./my lesson.yaml", "l3", seat=4).command == create_command(["./my lesson.yaml"], "l3", 4)


# --- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """The homes whose private libvirt was to end."""
    found: list[Home] = []
    monkeypatch.setattr(create, "stop_unused_private_libvirt", found.append)
    return found


def stopped(home: Home, folder: LabFolder) -> Interrupted:
    with pytest.raises(Interrupted) as caught, making(home, folder, "klab create x.yaml --name l3"):
        raise KeyboardInterrupt
    return caught.value


def test_ctrl_c_before_there_is_a_lab(home: Path, left: list[Home]) -> None:
    caught = stopped(Home(home), Home(home).lab("l3"))
    assert caught.message == "stopped before anything of the lab was made"
    assert caught.hint == "klab create x.yaml --name l3 begins again"
    assert left == [Home(home)]


def test_ctrl_c_when_there_is_one(home: Path, left: list[Home]) -> None:
    folder, _ = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="l3")
    caught = stopped(Home(home), folder)
    assert caught.message == "stopped; the machines made so far are still there"
    assert caught.hint == "klab create x.yaml --name l3 again continues from here; klab destroy l3 removes it"
    assert left == [Home(home)]


def test_any_other_failure_keeps_its_words(home: Path, left: list[Home]) -> None:
    with pytest.raises(Conflict, match="as it was"), making(Home(home), Home(home).lab("l3"), "klab create"):
        raise Conflict("as it was")
    assert left == [Home(home)]


# --- a lab that is there ---------------------------------------------------------------------------------


def test_a_lab_keeps_its_provider(home: Path) -> None:
    folder, _ = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="l3")
    assert provider_for("auto", folder.record()) == "fake"
    with pytest.raises(Conflict, match="exists on fake, not on libvirt"):
        provider_for("libvirt", folder.record())


def plan_of(text: str, catalog: Catalog) -> Plan:
    return decide(parse_scenario(text, catalog), catalog)


def test_a_lab_that_was_scaled_is_the_same_lab_as_long_as_its_scenario_is(home: Path, catalog: Catalog) -> None:
    folder, plan = Home(home).lab("plain"), plan_of(PLAIN, catalog)
    scaled = with_node(plan, "worker")
    write_atomic(folder.path / "plan.json", to_json(scaled))
    write_atomic(folder.path / "scenario.yaml", PLAIN)
    assert scaled_plan(folder, plan, PLAIN) == scaled
    text = PLAIN.replace("workers: 1", "workers: 2")
    edited = plan_of(text, catalog)
    assert scaled_plan(folder, edited, text) == edited
    larger = plan_of(PLAIN + "cpus: 3\nmirrors: {docker.io: http://mirror.lan}\n", catalog)
    assert scaled_plan(folder, larger, PLAIN) == larger
    for damage in (lambda file: file.write_bytes(b"\xff"), Path.unlink):
        damage(folder.path / "scenario.yaml")
        assert scaled_plan(folder, plan, PLAIN) == plan
