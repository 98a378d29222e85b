"""What is decided before a lab is made, and what a Ctrl-C leaves of one: which command continues with just that lab."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.fake_lab import lab_on_disk
from support.shelved import shelved_box

from lab.app import bundles, create, labs
from lab.app.create import Request, making, prepare, present_plan, provider_for
from lab.boxes.manifest import Box
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError, Conflict, HostError, Interrupted
from lab.files import write_atomic
from lab.host.capacity import DiskRoom, HostFacts
from lab.host.profile import REAL_TIME, HostProfile
from lab.machines.fake.provider import FakeProvider
from lab.plan.changes import with_node
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.plan.model import Plan, create_command
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import Home, LabFolder, Record

PLAIN = "version: 1\nname: plain\nbootstrap: none\ntopology: {control_planes: 1, workers: 1}\n"


def test_the_command_line_once_more_is_about_the_same_lab() -> None:
    assert str(create_command(["1m2w"], None)) == "klab create 1m2w"
    assert str(create_command(["./my lesson.yaml"], "l3", 4)) == "klab create './my lesson.yaml' --name l3 --seat 4"
    assert create.Request("./my lesson.yaml", "l3", seat=4).command == create_command(["./my lesson.yaml"], "l3", 4)


def test_what_no_box_has_is_told_before_anything_else(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BoxError, match=r"no box has all that the scenario 'cka-1\.28' asks for") as caught:
        prepare(Request("cka-1.28"), home=Home(home))
    assert caught.value.details[0].startswith("missing: the runtime docker (Debian's docker.io")
    assert (
        caught.value.hint == "klab create cka-1.28-containerd makes the same lesson of parts that can be had everywhere"
    )
    assert not home.exists()
    own = tmp_path / "own.yaml"
    own.write_text("version: 1\nname: own\nkubernetes: {cni: weave}\n")
    with pytest.raises(BoxError) as caught:
        prepare(Request(str(own)), home=Home(home))
    assert caught.value.hint.startswith("klab scenarios shows which can be created here")


# --- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """The homes whose private libvirt was to end."""
    found: list[Home] = []
    monkeypatch.setattr(create, "stop_unused_private_libvirt", found.append)
    return found


def stopped(home: Home, folder: LabFolder) -> Interrupted:
    with pytest.raises(Interrupted) as caught, making(home, folder, create_command(["x.yaml"], "l3")):
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
    assert present_plan(folder, plan, PLAIN) == scaled
    text = PLAIN.replace("workers: 1", "workers: 2")
    edited = plan_of(text, catalog)
    assert present_plan(folder, edited, text) == edited
    larger = plan_of(PLAIN + "cpus: 3\nmirrors: {docker.io: http://mirror.lan}\n", catalog)
    assert present_plan(folder, larger, PLAIN) == larger
    for damage in (lambda file: file.write_bytes(b"\xff"), Path.unlink):
        damage(folder.path / "scenario.yaml")
        assert present_plan(folder, plan, PLAIN) == plan


# --- everything that is decided -----------------------------------------------------------------------------


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with a box and room for any lab on fake machines; lists what prepare has asked."""
    made: list[str] = []
    shelved_box(Home(home))

    def noting(name: str, answer: Any) -> None:
        def ask(*_: object, **__: object) -> Any:
            made.append(name)
            return answer

        monkeypatch.setattr(create, name, ask)

    noting("choose_provider", "fake")

    def profile(_provider: FakeProvider, of: Home, cpus: int) -> HostProfile:
        made.append(f"profile for {cpus} CPUs")
        assert of == Home(home)
        return REAL_TIME

    monkeypatch.setattr(FakeProvider, "profile", profile)
    noting("host_facts", HostFacts(1 << 20, 64, DiskRoom(home, 1 << 50, ""), ()))
    noting("warnings", ["it will be slow"])
    for name in ("load_catalog", "load_scenario", "decide", "find_box"):
        noting_real(monkeypatch, made, name)
    return made


def noting_real(monkeypatch: pytest.MonkeyPatch, made: list[str], name: str) -> None:
    real = getattr(create, name)

    def ask(*args: Any, **options: Any) -> Any:
        made.append(name)
        return real(*args, **options)

    monkeypatch.setattr(create, name, ask)


def test_each_part_of_klab_is_asked_once(home: Path, asked: list[str]) -> None:
    told: list[str] = []
    prepared = prepare(Request("1m2w", "lesson", seat=3), note=told.append)
    assert asked == [
        *("load_catalog", "load_scenario", "decide", "choose_provider", "find_box"),
        *("profile for 6 CPUs", "host_facts", "warnings"),
    ]
    assert (prepared.plan.name, prepared.plan.seat, prepared.provider) == ("lesson", 3, "fake")
    assert prepared.box.recipe == prepared.plan.box
    assert told == ["it will be slow"]
    assert not prepared.lab.folder.path.exists(), "nothing has been made yet"


def test_what_does_not_fit_is_refused_before_anything_is_made(
    home: Path, asked: list[str], left: list[Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "host_facts", lambda *_: HostFacts(512, 64, DiskRoom(home, 1 << 50, ""), ()))
    with pytest.raises(HostError, match="1m2w does not fit on this machine") as caught:
        prepare(Request("1m2w"))
    assert "klab plan 1m2w" in caught.value.hint
    assert not Home(home).labs.exists()
    assert left == [Home(home)]


def test_a_box_whose_kube_proxy_has_no_ipset_is_refused_for_ipvs(
    home: Path, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("version: 1\nname: own\nkubernetes: {proxy_mode: ipvs}\n")
    with pytest.raises(BoxError, match="cannot work in the mode ipvs") as caught:
        prepare(Request(str(own)))
    assert "upstream's has" in caught.value.details[0]
    version = create.load_catalog().full_version(DEFAULT)
    assert caught.value.hint.startswith(f"klab box build debian-13 --kubernetes {version} --source release makes")
    assert "profile" not in str(asked)
    monkeypatch.setattr(Box, "source", "release")
    assert prepare(Request(str(own))).plan.kubernetes.proxy_mode == "ipvs"
    own.write_text("version: 1\nname: own\nkubernetes: {proxy_mode: ipvs}\nbootstrap: prepared\n")
    monkeypatch.setattr(Box, "source", "source")
    assert prepare(Request(str(own))).plan.bootstrap == "prepared", "the student chooses"


def test_a_lab_that_is_there_keeps_its_nodes_and_needs_no_room(home: Path, asked: list[str]) -> None:
    plan = prepare(Request("1m2w")).plan
    folder, scaled = Home(home).lab("1m2w"), with_node(plan, "worker")
    text = create.load_scenario("1m2w", create.load_catalog()).text
    write_atomic(folder.path / "plan.json", to_json(scaled))
    write_atomic(folder.path / "scenario.yaml", text)
    folder.write_record(Record("id", "1m2w", "fake", "box", 0, "ready", 1.0))
    asked.clear()
    assert prepare(Request("1m2w")).plan == scaled
    assert not {"choose_provider", "host_facts"} & set(asked)


def test_what_a_killed_klab_has_left_is_finished_by_the_labs_own_plan(
    home: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, own = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="1m2w")
    folder.attempt.parent.mkdir()
    folder.attempt.touch()
    finished: list[Plan] = []
    monkeypatch.setattr(labs, "_recover", lambda lab, _note: finished.append(lab.plan) or "it is finished")
    told: list[str] = []
    wanted = prepare(Request("1m2w"), note=told.append).plan
    assert finished == [own]
    assert wanted != own
    assert told == ["1m2w: it is finished"]


@pytest.mark.parametrize("module", [create, bundles])
def test_to_make_a_lab_leaves_the_thread_where_it_was(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that stayed in one home's private libvirt would take that for the next home's."""
    done: list[str] = []

    @contextlib.contextmanager
    def block(name: str) -> Iterator[None]:
        done.append(f"{name} begins")
        yield
        done.append(f"{name} ends")

    prepared = SimpleNamespace(lab=SimpleNamespace(home=None, folder=None))
    monkeypatch.setattr(module, "returning", lambda: block("returning"))
    for name in ("prepare", "prepare_import"):
        monkeypatch.setattr(module, name, lambda *_, **__: done.append("prepare") or prepared, raising=False)
    for name in ("making", "importing"):
        monkeypatch.setattr(module, name, lambda *_: block("making"), raising=False)
    for name in ("make", "make_imported"):
        monkeypatch.setattr(module, name, lambda *_, **__: done.append("make"), raising=False)
    if module is create:
        create.create(create.Request("1m2w"))
    else:
        bundles.import_lab(bundles.Request(Path("file")))
    assert done == ["returning begins", "prepare", "making begins", "make", "making ends", "returning ends"]
