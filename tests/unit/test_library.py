"""Finding and loading scenarios: the shipped ones, anyone's, and what can be wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import LabError, NotFound, ScenarioError, UsageError
from lab.library import find_scenario, load_scenario, shipped_names

HEAD = "version: 1\nname: test\n"
NGINX = "apiVersion: v1\nkind: Pod\nmetadata: {name: nginx}\n"


def test_every_scenario_of_the_issue_is_shipped() -> None:
    assert set(shipped_names()) >= {"1m2w", "1m1w", "3m", "ha-3m2w", "bare-1m2w"}


def test_a_shipped_file_is_named_like_its_scenario(catalog) -> None:
    for name in shipped_names():
        loaded = load_scenario(name, catalog)
        assert loaded.scenario.name == name
        assert loaded.scenario.description


def test_a_path_is_a_path(catalog, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(HEAD)
    loaded = load_scenario(str(file), catalog)
    assert (loaded.text, loaded.path) == (HEAD, file)


@pytest.mark.parametrize(
    ("name", "words"),
    [("1m3w", "did you mean 1m2w"), ("ha-3m2", "did you mean ha-3m2w"), ("no/such.yaml", "shipped are"), ("", "")],
)
def test_what_is_not_there(name: str, words: str) -> None:
    with pytest.raises(LabError) as caught:
        find_scenario(name)
    assert words in caught.value.hint


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_what_cannot_be_a_file(name: str) -> None:
    with pytest.raises(NotFound):
        find_scenario(name)


def test_a_folder_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "lesson.yaml").touch()
    with pytest.raises(UsageError, match="is a folder") as caught:
        find_scenario(str(tmp_path))
    assert "lesson.yaml" in caught.value.hint


def test_not_utf8_names_the_line(catalog, tmp_path: Path) -> None:
    file = tmp_path / "latin1.yaml"
    file.write_bytes(HEAD.encode() + "description: Übung".encode("latin-1"))
    with pytest.raises(ScenarioError, match="not UTF-8") as caught:
        load_scenario(str(file), catalog)
    assert caught.value.details == ("line 3: byte 0xdc begins no character",)


def test_a_file_that_cannot_be_read(catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text(HEAD)

    def refuse(_self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root reads everything, so chmod proves nothing
    with pytest.raises(UsageError, match="cannot be read") as caught:
        load_scenario(str(file), catalog)
    assert caught.value.details == ("Permission denied",)


def test_addons_beside_the_scenario_in_order(catalog, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text(f"{NGINX}---\n---\n{NGINX.replace('nginx', 'second')}")
    (tmp_path / "s.yaml").write_text(HEAD + "addons: [more/a.yaml]\n")
    loaded = load_scenario(str(tmp_path / "s.yaml"), catalog)
    assert [item["metadata"]["name"] for item in loaded.addons] == ["nginx", "second"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("a: [", "is not YAML"),
        ("just text", "no Kubernetes object"),
        (f"{NGINX}---\nkind: Pod\n", "document 2"),
        ("apiVersion: v1\nkind: Pod\nmetadata: []\n", "no Kubernetes object"),
    ],
)
def test_addons_that_cannot_be_used(catalog, tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a.yaml").write_text(content)
    (tmp_path / "s.yaml").write_text(HEAD + "addons: [a.yaml]\n")
    with pytest.raises(ScenarioError, match=words):
        load_scenario(str(tmp_path / "s.yaml"), catalog)
