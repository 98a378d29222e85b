"""LAB/images.json and the part of a bundle that says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.images.record import LabImage, add, from_data, from_json, images_of, keep, to_data
from lab.scenario.references import parse_reference
from lab.store import LabFolder

A, B, C = "a" * 64, "b" * 64, "c" * 64


def one(ref: str = "docker.io/library/nginx:1", top: str = A) -> LabImage:
    return LabImage(ref, (top, B), {top: 10, B: 20, C: 30})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "demo")
    folder.path.mkdir()
    assert images_of(folder) == ()
    assert [each.ref for each in add(folder, [one("x.io/b:1"), one("x.io/a:1")])] == ["x.io/a:1", "x.io/b:1"]
    (first, _) = add(folder, [one("x.io/a:1", "d" * 64)])
    assert first.revisions[0] == "d" * 64
    keep(folder, [])
    assert images_of(folder) == ()


def test_a_damaged_list_is_told(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "demo")
    folder.path.mkdir()
    for text in ("{", "[]", '{"format": 2, "images": []}', '{"format": 1}', '{"format": 1, "images": [{"ref": 1}]}'):
        folder.images.write_text(text)
        with pytest.raises(LabError, match="the list of the images of lab 'demo' is damaged") as caught:
            images_of(folder)
        assert "klab image load" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"ref": "nginx:1"},
        {"ref": "docker.io/library/nginx:1; reboot"},
        {"ref": f"docker.io/library/nginx@sha256:{C}"},
        {"revisions": []},
        {"revisions": [A, B, C]},
        {"revisions": ["x"]},
        {"files": {A: 10, B: 20, "../x": 3}},
        {"files": {A: 10, B: -1}},
        {"files": {A: 10}},
        {"files": {C: 10, "d" * 64: 1}},
    ],
)
def test_what_klab_never_writes_is_refused(change: dict[str, Any]) -> None:
    data = to_data([one()])
    assert from_data(data) == (one(),)
    with pytest.raises(ValueError, match=r".+"):
        from_data([{**data[0], **change}])
    with pytest.raises(ValueError, match="listed twice"):
        from_data([*data, *data])
    with pytest.raises(ValueError, match="not a list"):
        from_data({})
    with pytest.raises(ValueError, match="at most"):
        from_json(json.dumps({"format": 1, "images": data * 1001}))


def test_own_builds_are_marked_and_older_files_are_read() -> None:
    own = LabImage("docker.io/library/redis:7", (A, B), {A: 10, B: 20, C: 30}, own_build=True)
    data = to_data([one(), own])
    assert [each.get("own_build") for each in data] == [None, True], "an older klab reads what it knows"
    assert [each.own_build for each in from_data(data)] == [False, True]
    with pytest.raises(ValueError, match="own_build"):
        from_data([{**data[1], "own_build": "yes"}])


def test_by_which_names_a_node_can_be_asked() -> None:
    image = one()
    for name in ("nginx:1", f"nginx@sha256:{A}", f"nginx@sha256:{B}"):
        assert image.serves(parse_reference(name))
    for name in ("nginx", f"nginx@sha256:{C}", f"other@sha256:{A}"):
        assert not image.serves(parse_reference(name))
    assert one("hub.lan:5000/App".lower() + ":1").on_node.name == "hub.lan_5000/app"
