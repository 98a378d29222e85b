"""How the images of add-ons are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from lab import resources
from lab.boxes.recipe import Recipe, load_pack, load_recipe
from lab.components.addons import addons
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError


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
