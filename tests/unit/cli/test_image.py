"""klab image: what a person reads and a program gets, over fake machines whose nodes have registries."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.fake_lab import lab_on_disk, register
from support.registry_nodes import machines
from support.saved_images import CONTAINERD, image, layout_files, saved_files, write_folder, write_tar
from support.shelved import shelved_box

from lab.app import images as app_images
from lab.app import plans
from lab.boxes.manifest import MadeFrom, write_manifest
from lab.boxes.recipe import VENDOR, VENDOR_LABEL, Recipe
from lab.cli.terminal.progress import LiveTable
from lab.cluster.events import Event
from lab.components.kubernetes import DEFAULT
from lab.errors import RootNeeded
from lab.images.archive import take_all
from lab.images.record import images_of
from lab.images.sources import Sources
from lab.images.store import Image, Store
from lab.scenario.references import Reference
from lab.store import Home, LabFolder

REF = "docker.io/team/app:1"
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  initContainers: [{name: i, image: "redis:8"}, {name: n, image: "nginx", imagePullPolicy: Never}]
  containers: [{name: a, image: "team/app:1"}, {name: b, image: "Not An Image"}]
"""


@pytest.fixture
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabFolder:
    """A lab of two nodes that run."""
    made, _ = lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="full")
    register(monkeypatch, make=machines(tmp_path / "disks", ["cp1", "w1"]))
    return made


@pytest.fixture
def app_tar(tmp_path: Path) -> str:
    return str(write_tar(tmp_path / "app.tar", layout_files([(image(indexed=True), {CONTAINERD: REF})])))


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What keeps images from being had, by name; registries are not asked."""
    made: dict[str, str] = {}

    def obstacles(_self: Sources, references: list[Reference], *_: Any) -> dict[Reference, str]:
        return {each: made.get(str(each), "") for each in references}

    monkeypatch.setattr(Sources, "obstacles", obstacles)
    return made


def test_load_list_and_remove(klab: Any, folder: LabFolder, app_tar: str) -> None:
    _, err = klab("image", "load", "demo", app_tar)
    assert f"every node of demo has {REF} after 0:0" in err
    assert "w1: images done" in err
    out, err = klab("image", "list")
    assert out.splitlines()[0].split() == ["IMAGE", "DIGEST", "SIZE", "NODES"]
    assert out.splitlines()[1].split()[0] == REF
    assert out.splitlines()[1].endswith("all")
    assert "brings what is missing" not in err
    _, err = klab("image", "load", app_tar)
    assert f"every node of demo has {REF} already" in err
    _, err = klab("image", "rm", "team/app:1")
    assert f"removed from demo: {REF}; klab image prune frees the room on this machine" in err
    _, err = klab("image", "list")
    assert "klab has brought no image to demo" in err
    assert images_of(folder) == ()


def test_programs_get_json(klab: Any, folder: LabFolder, app_tar: str) -> None:
    out, _ = klab("image", "load", app_tar, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert {(line["event"]["node"], line["event"]["state"]) for line in lines[:-1]} == {
        (node, state) for node in ("cp1", "w1") for state in ("begin", "done")
    }
    (found,) = images_of(folder)
    one = {"image": REF, "digest": found.digest, "size": found.size, "own_build": False}
    assert {**lines[-1], "seconds": 0} == {
        "lab": "demo",
        "images": [one],
        "nodes": ["cp1", "w1"],
        "sent": 2 * found.size,
        "seconds": 0,
    }
    out, _ = klab("image", "list", "--json")
    assert json.loads(out) == {
        "lab": "demo",
        "images": [{**one, "nodes": {"cp1": True, "w1": True}, "complete": True}],
    }
    out, _ = klab("image", "list", "--here", "--json")
    kept = {"ref": REF, "digest": found.digest, "size": found.size, "labs": ["demo"], "own_build": False}
    assert json.loads(out) == [kept]
    out, _ = klab("image", "rm", REF, "--json")
    assert json.loads(out) == {"lab": "demo", "removed": [one]}
    out, _ = klab("image", "prune", "--json")
    assert json.loads(out) == {"removed": [REF], "bytes": found.size}


def test_without_images_the_nodes_get_what_they_lack(
    klab: Any, folder: LabFolder, app_tar: str, tmp_path: Path
) -> None:
    _, err = klab("image", "load", "demo")
    assert "klab has brought no image to demo yet; klab image load demo IMAGE brings one" in err
    klab("image", "load", app_tar)
    for each in (tmp_path / "disks/w1/var/lib/docker-registry/docker/registry/v2").iterdir():
        shutil.rmtree(each)
        each.mkdir()
    out, err = klab("image", "list")
    assert "missing on w1" in out
    assert "klab image load demo brings what is missing" in err
    _, err = klab("image", "load")
    assert "every node of demo has all of its images after" in err
    assert images_of(folder)


@pytest.mark.usefixtures("folder")
def test_nodes_that_are_off_are_told(klab: Any, app_tar: str) -> None:
    klab("image", "load", app_tar)
    klab("stop", "w1", "--force")
    out, _ = klab("image", "list")
    assert "not asked: w1" in out
    _, err = klab("image", "load", app_tar, code=4)
    assert "w1 is stopped" in err
    assert "klab start demo" in err


def test_what_is_asked_wrongly(klab: Any, home: Path, app_tar: str) -> None:
    _, err = klab("image", "load", "nginx", code=3)
    assert "there is no lab yet" in err
    lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="plain")
    _, err = klab("image", "load", "plain", app_tar, code=4)
    assert "plain machines" in err
    assert not (home / "images").exists(), "nothing is fetched for it"
    _, err = klab("image", "rm", "plain", code=2)
    assert "klab image list plain lists them" in err
    _, err = klab("image", "list", "plain", "--here", code=2)
    assert "leave one of the two out" in err
    _, err = klab("image", "check", "x.yaml", "--load", code=2)
    assert "--lab LAB names it" in err
    _, err = klab("image", "fetch", "--box", "nothing", "nginx", code=3)
    assert "there is no box 'nothing'" in err
    _, err = klab("image", "fetch", "--box", "x", "--name", "y", "nginx", code=2)
    assert "--name is for a file or folder" in err
    _, err = klab("image", "fetch", app_tar, "--name", "A B", code=2)
    assert "is not an image" in err


def test_fetched_for_later(klab: Any, home: Path, tmp_path: Path) -> None:
    file = str(write_tar(tmp_path / "old.tar", saved_files(["app:1"])))
    out, _ = klab("image", "fetch", file)
    assert out.startswith("docker.io/library/app:1  sha256:")
    out, _ = klab("image", "list", "--here")
    assert out.splitlines()[1].split()[-1] == "none"
    _, err = klab("image", "prune")
    assert "removed 1 images" in err
    _, err = klab("image", "prune")
    assert "there is nothing to remove" in err
    _, err = klab("image", "list", "--here")
    assert "klab image fetch IMAGE fetches one" in err
    assert not list((home / "images/blobs/sha256").iterdir())


# --- own builds ---------------------------------------------------------------------------------------


@pytest.fixture
def built(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names that were asked for at each build; small images stand for them."""
    asked: list[list[str]] = []

    def build(_home: Home, references: list[Reference], _box: Recipe, _tell: Any) -> list[Image]:
        asked.append([str(each) for each in references])
        made = [
            (image((f"{len(asked)}",), labels={VENDOR_LABEL: VENDOR}), {CONTAINERD: str(each)}) for each in references
        ]
        store = Store(Home(home))
        with store.lock():
            return take_all(
                store, write_folder(tmp_path / f"built-{len(asked)}", layout_files(made)), None, lambda _: None
            )

    monkeypatch.setattr(app_images, "take_own_builds", build)
    return asked


def test_an_own_build_is_brought_and_marked(klab: Any, folder: LabFolder, built: list[list[str]]) -> None:
    ref = "docker.io/library/redis:7-alpine"
    _, err = klab("image", "load", "--own-build", "redis:7-alpine")
    assert f"every node of demo has {ref} after" in err
    assert built == [[ref]]
    (found,) = images_of(folder)
    assert found.own_build
    out, _ = klab("image", "list")
    assert f"{ref} (own build) " in out
    out, _ = klab("image", "list", "--json")
    assert json.loads(out)["images"][0]["own_build"] is True
    out, _ = klab("image", "list", "--here")
    assert f"{ref} (own build) " in out
    out, _ = klab("image", "list", "--here", "--json")
    assert json.loads(out)[0]["own_build"] is True


def test_an_own_build_that_is_here_is_not_built_again(klab: Any, home: Path, built: list[list[str]]) -> None:
    klab("image", "fetch", "--own-build", "redis:7")
    out, _ = klab("image", "fetch", "--own-build", "redis:7", "httpd", "--json")
    assert [each["image"] for each in json.loads(out)] == [
        "docker.io/library/redis:7",
        "docker.io/library/httpd:latest",
    ]
    assert built == [["docker.io/library/redis:7"], ["docker.io/library/httpd:latest"]]
    klab("image", "fetch", "--own-build", "--pull", "redis:7")
    assert len(built) == 3


def test_an_own_build_takes_the_place_of_an_original(
    klab: Any, home: Path, tmp_path: Path, built: list[list[str]]
) -> None:
    klab("image", "fetch", str(write_tar(tmp_path / "old.tar", saved_files(["redis:7"]))))
    klab("image", "fetch", "--own-build", "redis:7")
    assert len(built) == 1
    out, _ = klab("image", "list", "--here", "--json")
    assert [(each["ref"], each["own_build"]) for each in json.loads(out)] == [("docker.io/library/redis:7", True)]


def test_what_klab_cannot_build(klab: Any, home: Path, built: list[list[str]]) -> None:
    _, err = klab("image", "fetch", "--own-build", "redsi", code=3)
    assert "klab has no own build of docker.io/library/redsi" in err
    assert "it has: docker.io/library/nginx, docker.io/library/busybox" in err
    assert "did you mean docker.io/library/redis?" in err
    _, err = klab("image", "fetch", "--own-build", f"redis@sha256:{'ab' * 32}", code=2)
    assert "name it by a tag" in err
    _, err = klab("image", "fetch", "--own-build", "--box", "x", "redis", code=2)
    assert "leave --box and --name out" in err
    _, err = klab("image", "check", "x.yaml", "--own-build", code=2)
    assert "add --load" in err
    assert built == []


@pytest.mark.usefixtures("folder")
def test_who_may_not_build_is_told_how(klab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[Image]:
        raise RootNeeded("only root", hint="sudo")

    monkeypatch.setattr(app_images, "take_own_builds", refuse)
    _, err = klab("image", "load", "--own-build", "redis:7", code=5)
    assert "are not on this machine yet, and building them needs root" in err
    assert "klab image fetch --own-build docker.io/library/redis:7 builds them" in err
    monkeypatch.setattr("lab.cli.terminal.sudo.again_as_root", lambda *_: 0)
    klab("image", "fetch", "--own-build", "redis:7")


def test_check_tells_of_own_builds_and_brings_them(
    klab: Any, folder: LabFolder, tmp_path: Path, reached: dict[str, str], built: list[list[str]]
) -> None:
    reached |= {"docker.io/library/redis:8": "no answer", REF: "no answer"}
    (tmp_path / "pod.yaml").write_text(POD.replace('"Not An Image"', '"team/app:1"'))
    out, _ = klab("image", "check", str(tmp_path / "pod.yaml"), code=1)
    assert "klab can build its own: klab image load --own-build docker.io/library/redis:8" in out
    assert f"--own-build {REF}" not in out
    out, _ = klab("image", "check", str(tmp_path / "pod.yaml"), "--lab", "demo", "--json", code=1)
    rows = {each["image"]: (each["place"], each["own_build"]) for each in json.loads(out)["images"]}
    assert rows["docker.io/library/redis:8"] == ("nowhere", True)
    assert rows[REF] == ("nowhere", False)
    out, _ = klab("image", "check", str(tmp_path / "pod.yaml"), "--lab", "demo", "--load", "--own-build", code=1)
    assert built == [["docker.io/library/redis:8"]]
    assert "docker.io/library/redis:8: in the lab" in out
    assert [(each.ref, each.own_build) for each in images_of(folder)] == [("docker.io/library/redis:8", True)]


# --- what manifests ask for ---------------------------------------------------------------------------


def test_check_without_a_lab_holds_to_the_box(klab: Any, tmp_path: Path, reached: dict[str, str]) -> None:
    reached["docker.io/library/redis:8"] = "no answer within 10 s"
    (tmp_path / "pod.yaml").write_text(POD)
    out, err = klab("image", "check", str(tmp_path / "pod.yaml"), code=1)
    assert "docker.io/library/redis:8: not to be had (no answer within 10 s)" in out
    assert "docker.io/library/nginx:latest: in the box" in out
    assert f"{REF}: in its registry: klab image load" in out
    assert "Not An Image: not an image (" in out
    assert f"  {tmp_path / 'pod.yaml'}: Pod one, container a" in out
    assert "imagePullPolicy Never asks no registry" in err
    assert "1 of 4 images are there" in err


def test_check_loads_what_can_be_had(
    klab: Any, folder: LabFolder, app_tar: str, tmp_path: Path, reached: dict[str, str]
) -> None:
    klab("image", "fetch", app_tar)
    reached["docker.io/library/redis:8"] = "manifest unknown"
    (tmp_path / "lesson").mkdir()
    (tmp_path / "lesson/pod.yaml").write_text(POD.replace('"Not An Image"', '"team/app:1"'))
    (tmp_path / "lesson/chart.yaml").write_text("{{ if }}")
    out, err = klab("image", "check", str(tmp_path / "lesson"), "--lab", "demo", code=1)
    assert f"{REF}: on this machine: klab image load" in out
    assert "left out: " in err
    out, err = klab("image", "check", str(tmp_path / "lesson"), "--lab", "demo", "--load", code=1)
    assert f"{REF}: in the lab" in out
    assert [each.ref for each in images_of(folder)] == [REF]
    (tmp_path / "lesson/pod.yaml").write_text(
        POD.replace("redis:8", "busybox").replace('"Not An Image"', '"team/app:1"')
    )
    out, _ = klab("image", "check", str(tmp_path / "lesson"), "--lab", "demo", "--json")
    answer = json.loads(out)
    assert {(each["image"], each["place"], each["there"]) for each in answer["images"]} == {
        ("docker.io/library/busybox:latest", "box", True),
        ("docker.io/library/nginx:latest", "box", True),
        (REF, "lab", True),
    }
    assert answer["lab"] == "demo"
    assert len(answer["left_out"]) == 1


def test_offline_asks_nobody(klab: Any, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(POD)
    out, _ = klab("image", "check", str(tmp_path / "pod.yaml"), "--offline", code=1)
    assert f"{REF}: not to be had (no registry was asked)" in out


def test_digests_of_the_box_and_of_the_lab(
    home: Path, tmp_path: Path, folder: LabFolder, klab: Any, app_tar: str
) -> None:
    box = shelved_box(Home(home))
    digest = f"sha256:{'ab' * 32}"
    made = MadeFrom("source", {}, {"version": DEFAULT}, {}, {"docker.io/library/nginx:latest": digest})
    write_manifest(dataclasses.replace(box, made_from=made))
    folder.update_record(box=box.folder.name)
    klab("image", "load", app_tar)
    top, own = images_of(folder)[0].revisions
    names = [f"nginx@{digest}", f"team/app@sha256:{top}", f"team/app@sha256:{own}", "busybox"]
    containers = ", ".join(f'{{name: c{i}, image: "{name}"}}' for i, name in enumerate(names))
    (tmp_path / "p.yaml").write_text(f"{{kind: Pod, spec: {{containers: [{containers}]}}}}")
    out, _ = klab("image", "check", str(tmp_path / "p.yaml"), "--lab", "demo", "--offline", "--json", code=1)
    assert [each["place"] for each in json.loads(out)["images"]] == ["box", "lab", "lab", "nowhere"]


# --- a plan -------------------------------------------------------------------------------------------


def test_a_plan_tells_what_is_not_here(klab: Any, tmp_path: Path, app_tar: str) -> None:
    file = tmp_path / "lesson.yaml"
    file.write_text("version: 1\nname: lesson\nimages: [team/app:1, nginx, redis:8]\n")
    out, _ = klab("validate", str(file))
    assert f"not on this machine, and fetched by klab create: {REF}, docker.io/library/redis:8" in out
    klab("image", "fetch", app_tar)
    out, _ = klab("validate", str(file), "--json")
    assert json.loads(out)[0]["images_to_fetch"] == ["docker.io/library/redis:8"]
    out, _ = klab("plan", str(file))
    assert "klab create fetches these images" in out
    assert f"images      {REF}, docker.io/library/nginx:latest, docker.io/library/redis:8" in out
    out, _ = klab("plan", str(file), "--json")
    assert json.loads(out)["images_to_fetch"] == ["docker.io/library/redis:8"]
    assert json.loads(out)["plan"]["images"][0] == REF
    assert plans.to_fetch(plans.check("1m2w")) == []


def test_a_create_has_what_it_needs_on_this_machine(home: Path, tmp_path: Path, klab: Any, app_tar: str) -> None:
    klab("image", "fetch", app_tar)
    file = tmp_path / "lesson.yaml"
    file.write_text("version: 1\nname: lesson\nimages: [team/app:1, nginx]\n")
    plan = plans.check(str(file))
    (found,) = app_images.for_create(Home(home), plan, [], print)
    assert found.ref == REF
    assert app_images.for_create(Home(home), plan, [found], print) == []


def test_the_live_table_tells_how_far_the_images_are(home: Path) -> None:
    _, plan = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="full")
    shown = io.StringIO()
    table = LiveTable(plan, Console(file=shown, width=120))
    for phase, state, text in (
        ("ready", "done", ""),
        ("images", "begin", ""),
        ("images", "begin", "1 GiB of 3 GiB"),
    ):
        table(Event(1.0, "cp1", phase, state, text))
    table._console.print(table._draw())
    assert "images" in shown.getvalue()
    assert "(1 GiB of 3 GiB)" in shown.getvalue()
    table(Event(2.0, "cp1", "images", "done"))
    table._console.print(table._draw())
    assert "Ready" in shown.getvalue().splitlines()[-2]
