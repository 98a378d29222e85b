"""How the images of add-ons are made."""

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
from lab.boxes.recipe import ImageSpec, Recipe, load_pack, load_recipe
from lab.components.addons import addons
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError
from lab.images.archive import take_all
from lab.images.store import Store
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
