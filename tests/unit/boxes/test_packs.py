"""How the images of add-ons, and klab's own builds of images of lessons, are made."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from lab import resources
from lab.boxes.cache import digest_tree
from lab.boxes.images import Layout, read_layout
from lab.boxes.packs import compress
from lab.boxes.recipe import ImageSpec, Recipe, load_own_builds, load_pack, load_recipe, own_builds
from lab.components.addons import addons
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError
from lab.images.archive import take_all
from lab.images.store import Store
from lab.scenario.references import parse_reference
from lab.store import Home


@dataclass(frozen=True)
class Pack:
    name: str = "thing"
    version: str = "1.2.3"
    images: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"thing": "example.org/thing:v1.2.3"}))


GOOD = """
programs:
- {name: thing, module: example.org/thing, version: "v{version}", build: {thing: ""}}
images:
- {component: thing, programs: {/thing: thing}, entrypoint: [/thing]}
"""


@pytest.fixture(scope="module")
def box() -> Recipe:
    return load_recipe("debian-13", DEFAULT)


def recipes(root: Path, text: str) -> Path:
    (root / "addons").mkdir()
    (root / "addons" / "thing.yaml").write_text(text)
    return root


def test_a_pack_is_made_as_the_box_is_and_of_nothing_else(tmp_path: Path, box: Recipe) -> None:
    made = load_pack(Pack(), box, root=recipes(tmp_path, GOOD))
    assert [(each.name, each.version) for each in made.programs] == [("thing", "v1.2.3")]
    assert [each.ref for each in made.images] == ["example.org/thing:v1.2.3"]
    assert (made.go, made.epoch, made.suite, made.folder) == (box.go, box.epoch, box.suite, tmp_path / "addons")
    assert (made.packages, made.install) == ((), ())
    assert made.bases == box.bases


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "."),
        ("programs: [", "."),
        (GOOD.replace("component: thing", "component: other"), "images: of thing, not of other"),
        (GOOD.replace("{version}", "{kubernetes}"), "names no version"),
        (GOOD + "more: 1", "more"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, box: Recipe, text: str, why: str) -> None:
    with pytest.raises(BoxError, match="the images of thing cannot be made") as caught:
        load_pack(Pack(), box, root=recipes(tmp_path, text))
    assert why in caught.value.details[0]
    assert caught.value.hint


def test_a_missing_file_is_told(tmp_path: Path, box: Recipe) -> None:
    with pytest.raises(BoxError, match="the images of thing cannot be made"):
        load_pack(Pack(), box, root=tmp_path)


@pytest.mark.parametrize("name", addons())
def test_every_addon_that_klab_knows_has_its_file(name: str, box: Recipe) -> None:
    made = load_pack(addons()[name], box)
    built = {program for each in made.programs for program in each.build}
    assert {program for each in made.images for _, program in each.programs} <= built
    assert {each.base for each in made.images if each.base} <= made.bases.keys()


def test_every_file_belongs_to_an_addon() -> None:
    files = {file.stem for file in (resources.path("boxes") / "addons").glob("*.yaml")}
    assert files == set(addons())


def test_packed_images_are_the_same_images_and_equal_each_time(tmp_path: Path) -> None:
    made = Layout(tmp_path / "plain", epoch=0)
    for name in ("base", "one", "two"):
        (tmp_path / name).write_bytes(name.encode() * 10000)
    base, one, two = (made.add_layer(tmp_path / name) for name in ("base", "one", "two"))
    made.add_image(ImageSpec(ref="example.org/one:1"), [base, one])
    made.add_image(ImageSpec(ref="example.org/two:1"), [base, two])
    made.close()
    for target in ("packed", "again"):
        compress(tmp_path / "plain", tmp_path / target)
    first, second = (digest_tree(tmp_path / target) for target in ("packed", "again"))
    assert first == second
    before, after = read_layout(tmp_path / "plain"), read_layout(tmp_path / "packed")
    assert [(each.ref, each.config) for each in after] == [(each.ref, each.config) for each in before]
    for plain, packed in zip(before, after, strict=True):
        for layer, smaller in zip(plain.layers, packed.layers, strict=True):
            data = (tmp_path / "packed/blobs/sha256" / smaller).read_bytes()
            assert hashlib.sha256(data).hexdigest() == smaller
            assert hashlib.sha256(gzip.decompress(data)).hexdigest() == layer
            assert len(data) < 5000
    store = Store(Home(tmp_path / "home"))
    with store.lock():
        found = take_all(store, tmp_path / "packed", None, lambda _: None)
    assert [str(each.reference) for each in found] == ["example.org/one:1", "example.org/two:1"]


# --- own builds ---------------------------------------------------------------------------------------

LESSONS = """
bases: {cache: [redis-server, busybox-static]}
leave_out: {cache: [usr/share/perl]}
images:
- {repositories: [docker.io/library/redis], about: Redis, base: cache, overlay: images/redis, folders: {/data: 999}}
- {repositories: [docker.io/library/web, docker.io/other/web], about: a web server, base: web, command: [web]}
"""


def lessons(root: Path, text: str) -> Path:
    (root / "lessons").mkdir()
    (root / "lessons" / "images.yaml").write_text(text)
    return root


def test_own_builds_get_the_names_that_are_asked_for(tmp_path: Path, box: Recipe) -> None:
    root = lessons(tmp_path, LESSONS)
    wanted = [parse_reference(name) for name in ("redis:7-alpine", "other/web", "redis:6")]
    made = load_own_builds(wanted, box, root=root)
    assert [each.ref for each in made.images] == [str(each) for each in wanted]
    first, second, _ = made.images
    assert (first.base, first.overlay, first.folders) == ("cache", "images/redis", (("/data", 999),))
    labels = dict(first.labels)
    assert labels["org.opencontainers.image.vendor"] == "klab"
    assert labels["org.opencontainers.image.title"] == "docker.io/library/redis"
    assert labels["org.opencontainers.image.description"] == "Redis; klab's own build from Debian packages"
    assert second.command == ("web",)
    assert (made.programs, made.packages, made.install, made.folder) == ((), (), (), root / "lessons")
    assert made.bases == {**box.bases, "cache": ("redis-server", "busybox-static")}
    assert made.leave_out == {"cache": ("usr/share/perl",)}


def test_what_klab_can_build_is_data(tmp_path: Path) -> None:
    assert own_builds(root=lessons(tmp_path, LESSONS)) == {
        "docker.io/library/redis": "Redis",
        "docker.io/library/web": "a web server",
        "docker.io/other/web": "a web server",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a mapping"),
        ("images: [", "."),
        (LESSONS + "more: 1", "more"),
        (LESSONS.replace("base: cache", "base: cash"), "no base is called cash"),
        (LESSONS.replace("about: Redis", "component: redis"), "either a component or a ref"),
    ],
)
def test_a_damaged_file_of_lessons_is_told(tmp_path: Path, box: Recipe, text: str, why: str) -> None:
    with pytest.raises(BoxError, match="images of lessons cannot be made") as caught:
        load_own_builds([parse_reference("redis")], box, root=lessons(tmp_path, text))
    assert why in caught.value.details[0]


def test_every_own_build_has_what_it_names(box: Recipe) -> None:
    known = own_builds()
    made = load_own_builds([parse_reference(f"{name}:1") for name in known], box)
    for each in made.images:
        assert each.ref.removesuffix(":1") in known
        assert known[each.ref.removesuffix(":1")], "a person is told what it has"
        assert not each.overlay or (made.folder / each.overlay).is_dir()
        assert "busybox-static" in made.bases[each.base], "its shell and tools"
        assert each.command or each.entrypoint
        program = made.folder / each.overlay / "usr/local/bin" / (each.entrypoint or ("",))[0]
        assert not each.entrypoint or each.entrypoint[0].startswith("/") or program.stat().st_mode & 0o100
    assert made.leave_out.keys() <= made.bases.keys()
    assert all(str(parse_reference(name)) == f"{name}:latest" for name in known), "whole names"
