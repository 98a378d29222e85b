"""klab addon: what a person reads and a program gets; machines are fakes, and an API server keeps what is applied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster_server import ClusterServer
from support.fake_lab import lab_on_disk, register
from support.registry_nodes import machines
from support.saved_images import CONTAINERD, image, layout_files

from lab.app import addons as app
from lab.boxes.recipe import Recipe
from lab.components.addons.base import Addon
from lab.errors import RootNeeded
from lab.images.record import images_of
from lab.images.sources import Sources
from lab.images.store import Image, Store
from lab.scenario.references import Reference
from lab.store import Home, LabFolder

NAME = "metrics-server"


@pytest.fixture
def cluster() -> Iterator[ClusterServer]:
    made = ClusterServer()
    yield made
    made.close()


@pytest.fixture
def folder(home: Path, tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch) -> LabFolder:
    """A lab of two nodes that run, whose registries are asked by nobody: they do not answer."""
    made, plan = lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="full")
    register(monkeypatch, make=machines(tmp_path / "disks", ["cp1", "w1"]))
    cluster.serve(made, plan)
    cluster.redirect(monkeypatch)
    monkeypatch.setattr(Sources, "obstacles", lambda _self, wanted, *_: dict.fromkeys(wanted, "no route to host"))
    return made


@pytest.fixture
def compiled(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The add-ons whose images were compiled; a small image stands for each."""
    made: list[str] = []

    def compile_them(_home: Home, addon: Addon, _box: Recipe, _tell: Any) -> list[Image]:
        from lab.images.archive import take_all

        made.append(addon.name)
        place = tmp_path / f"{addon.name}-{len(made)}"
        for name, content in layout_files(
            [(image(str(number)), {CONTAINERD: ref}) for number, ref in enumerate(addon.images.values())]
        ).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        store = Store(Home(home))
        with store.lock():
            return take_all(store, place, None, lambda _: None)

    monkeypatch.setattr(app, "take_compiled", compile_them)
    return made


def test_an_addon_is_brought_listed_and_removed(klab: Any, folder: LabFolder, compiled: list[str]) -> None:
    out, _ = klab("addon", "list")
    assert out.splitlines()[0].split()[:3] == ["ADD-ON", "VERSION", "STATE"]
    assert f"{NAME} " in out
    assert " works " not in out
    _, err = klab("addon", "add", NAME)
    assert "they are compiled here: no route to host" in err
    assert f"demo has {NAME}, which works after 0:0" in err
    assert compiled == [NAME]
    assert [each.ref for each in images_of(folder)] == list(app.named([NAME])[0].images.values())
    out, _ = klab("addon", "list", "demo")
    (line,) = (line for line in out.splitlines() if line.startswith(NAME))
    assert " works " in line
    _, err = klab("addon", "add", "demo", NAME)
    assert compiled == [NAME], "what the lab has is not made again"
    _, err = klab("addon", "rm", NAME)
    assert f"removed from demo: {NAME}" in err


@pytest.mark.usefixtures("folder", "compiled")
def test_programs_get_json(klab: Any) -> None:
    out, _ = klab("addon", "add", NAME, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert {**lines[-1], "seconds": 0} == {"lab": "demo", "added": [NAME], "seconds": 0}
    assert all("event" in line for line in lines[:-1])
    out, _ = klab("addon", "list", "--json")
    (found,) = (each for each in json.loads(out)["addons"] if each["name"] == NAME)
    assert (found["installed"], found["works"], found["missing"]) == (True, True, [])
    out, _ = klab("addon", "rm", NAME, "--json")
    assert json.loads(out.splitlines()[-1]) == {"lab": "demo", "removed": [NAME]}
    out, _ = klab("addon", "fetch", NAME, "--json")
    assert [each["image"] for each in json.loads(out)] == list(app.named([NAME])[0].images.values())


@pytest.mark.usefixtures("folder")
def test_words_that_are_wrong(klab: Any) -> None:
    _, err = klab("addon", "add", "metric-server", code=3)
    assert "klab knows no add-on 'metric-server'" in err
    assert "did you mean metrics-server?" in err
    _, err = klab("addon", "add", code=2)
    assert "an add-on is needed" in err
    _, err = klab("addon", "rm", "demo", code=2)
    assert "klab addon list demo lists them" in err


@pytest.mark.usefixtures("folder")
def test_who_may_not_compile_is_told_how(klab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[Image]:
        raise RootNeeded("only root", hint="sudo")

    monkeypatch.setattr(app, "take_compiled", refuse)
    _, err = klab("addon", "add", NAME, code=5)
    assert f"the images of the add-on {NAME} are not on this machine, and compiling them needs root" in err
    assert f"klab addon fetch {NAME} compiles them" in err


@pytest.mark.usefixtures("folder")
def test_images_that_registries_have_are_fetched(klab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Sources, "obstacles", lambda _self, wanted, *_: dict.fromkeys(wanted, ""))

    def take(_self: Sources, sources: Any, name: Reference | None = None) -> list[Image]:
        asked.extend(each.word for each in sources)
        return []

    monkeypatch.setattr(Sources, "take", take)
    klab("addon", "fetch", NAME)
    assert asked == list(app.named([NAME])[0].images.values())
