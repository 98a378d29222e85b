"""Images out of a box's disk, and which images a box is known to have. Registries: tests/integration/test_images.py."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from support.saved_images import image
from support.shelved import shelved_box

from lab import process
from lab.app import images
from lab.boxes import registry, store
from lab.boxes.disk import FIRST_SECTOR, SECTOR
from lab.boxes.images import Stored
from lab.boxes.manifest import Box, MadeFrom, describe_file, write_manifest
from lab.boxes.upstream.addresses import Registry
from lab.boxes.upstream.skopeo import Skopeo
from lab.cli.terminal.completion import image_names
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError, HostError, Interrupted, NotFound
from lab.images.boxed import box_has, images_of_box
from lab.images.record import LabImage, keep
from lab.images.sources import Sources
from lab.images.store import Store
from lab.scenario.references import parse_reference
from lab.store import Home, Record

OFFSET = FIRST_SECTOR * SECTOR
NGINX, BROKEN = "docker.io/library/nginx:latest", "docker.io/library/broken:1"


@pytest.fixture
def box(home: Path, tmp_path: Path) -> Box:
    """A box in whose registry nginx is, and an image whose manifest is none."""
    found, root, blobs = shelved_box(Home(home)), tmp_path / "root", tmp_path / "blobs"
    made = image(("base", "nginx"))
    blobs.mkdir()
    for name, data in {**made.blobs, "a" * 64: b"{}"}.items():
        (blobs / name).write_bytes(data)
    manifest = json.loads(made.blobs[made.manifest])
    config, *layers = (each["digest"].removeprefix("sha256:") for each in (manifest["config"], *manifest["layers"]))
    stored = [Stored(NGINX, made.manifest, config, tuple(layers)), Stored(BROKEN, "a" * 64, config, ())]
    registry.write(root / registry.STORAGE, blobs, stored, place=shutil.copyfile)
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(OFFSET + (16 << 20))
    process.run(["mke2fs", "-q", "-t", "ext4", "-d", root, "-E", f"offset={OFFSET}", raw, "16M"], timeout=60)
    process.run(["qemu-img", "convert", "-O", "qcow2", raw, found.disk], timeout=60)
    whole = dataclasses.replace(found, files={**found.files, found.disk.name: describe_file(found.disk)})
    write_manifest(whole)
    return whole


@pytest.fixture
def sources(home: Path) -> Sources:
    return Sources(Store(Home(home)), lambda _text: None)


def test_an_image_out_of_a_box(box: Box, sources: Sources) -> None:
    expected = image(("base", "nginx"))
    (found,) = sources.take_from_box(box, [parse_reference("nginx")])
    assert (str(found.reference), found.hex) == (NGINX, expected.top)
    assert {file.name for file in sources.store.blobs.iterdir()} == set(expected.blobs)
    (again,) = sources.take_from_box(box, [parse_reference(f"nginx@sha256:{expected.top}")])
    assert again.hex == expected.top


def test_what_a_box_does_not_have(box: Box, sources: Sources) -> None:
    with pytest.raises(NotFound, match=r"has no image docker\.io/library/redis:latest") as caught:
        sources.take_from_box(box, [parse_reference("redis")])
    assert f"it has {NGINX}" in caught.value.details
    with pytest.raises(BoxError, match=r"the registry in the box .* is damaged") as damaged:
        sources.take_from_box(box, [parse_reference("broken:1")])
    assert "klab box verify" in damaged.value.hint


def test_what_a_box_is_known_to_have(home: Path) -> None:
    by_recipe = images_of_box(Home(home), "debian-13", DEFAULT)
    nginx = parse_reference("nginx")
    assert by_recipe[nginx] == ""
    assert not box_has(by_recipe, parse_reference("redis"))
    assert images_of_box(Home(home), "rocky-9", "") == {}
    made = shelved_box(Home(home))
    digest = f"sha256:{'ab' * 32}"
    write_manifest(
        dataclasses.replace(made, made_from=MadeFrom("source", {}, {"version": DEFAULT}, {}, {NGINX: digest}))
    )
    built = images_of_box(Home(home), "debian-13", DEFAULT)
    assert built == {nginx: digest}
    assert built == images_of_box(Home(home), "debian-13", DEFAULT, store.list_boxes(Home(home))[0].folder.name)
    assert box_has(built, parse_reference(f"nginx@{digest}"))
    assert not box_has(built, parse_reference(f"redis@{digest}"))


def test_names_of_images_complete(home: Path) -> None:
    folder = Home(home).lab("demo")
    folder.path.mkdir(parents=True)
    folder.write_record(Record("id", "demo", "fake", "box", 0, "ready", 1.0))
    assert image_names() == []
    top = "a" * 64
    keep(folder, [LabImage("docker.io/library/redis:8", (top,), {top: 1, "b" * 64: 2})])
    assert image_names() == ["docker.io/library/redis:8"]
    folder.images.write_text("{")
    assert image_names() == []


@pytest.mark.parametrize(
    ("mirror", "name", "plain"),
    [
        ("http://mirror.lan:5000", "mirror.lan:5000/team/app", True),
        ("https://harbor.example.edu/quay/", "harbor.example.edu/quay/team/app", False),
        ("https://harbor.example.edu/v2/quay", "harbor.example.edu/quay/team/app", False),
    ],
)
def test_a_mirror_is_asked_before_its_registry(home: Path, mirror: str, name: str, plain: bool) -> None:
    sources = Sources(Store(Home(home)), lambda _text: None, {"quay.io": mirror})
    first, second = sources._places(parse_reference("quay.io/team/app:1"))
    assert (first[1], first[0].plain, first[0].host) == (name, plain, name.partition("/")[0])
    assert (second[1], second[0].host) == ("quay.io/team/app", "quay.io")
    assert len(sources._places(parse_reference("ghcr.io/team/app"))) == 1


def test_a_registry_that_does_not_answer_is_asked_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def obstacle(_self: Skopeo, _registry: Registry, name: str, _seconds: float) -> str:
        asked.append(name)
        return "no answer within 10 s" if name.startswith("dead.lan") else "manifest unknown" if "gone" in name else ""

    monkeypatch.setattr(Skopeo, "obstacle", obstacle)
    wanted = [parse_reference(text) for text in ("dead.lan/a", "dead.lan/b", "here.lan/a", "here.lan/gone")]
    found = Sources(Store(Home(home)), lambda _text: None).obstacles(wanted)
    assert [found[each] for each in wanted] == ["no answer within 10 s"] * 2 + ["", "manifest unknown"]
    assert sorted(asked) == ["dead.lan/a:latest", "here.lan/a:latest", "here.lan/gone:latest"]


def test_ctrl_c_while_fetching_says_what_it_has_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sources, "take", stopped)
    with pytest.raises(Interrupted, match="stopped while fetching; no node was changed") as caught:
        images.fetch(Home(home), images.Wanted(["nginx"]))
    assert "run the same command again to continue" in caught.value.hint


def test_two_klabs_take_turns(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.images.store._PATIENCE", 0.0)
    store_of_both = Store(Home(home))
    with (
        store_of_both.lock(),
        pytest.raises(HostError, match="for the images that klab keeps"),
        Store(Home(home)).lock(),
    ):
        pass
