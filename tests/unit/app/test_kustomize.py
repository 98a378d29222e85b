"""Add-ons that are folders, built by a kubectl: here a stand-in for it. The real one: tests/integration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.shelved import shelved_box

from lab.app.kustomize import kustomize
from lab.boxes.kubectl import any_kubectl
from lab.boxes.manifest import write_manifest
from lab.errors import HostError, ScenarioError
from lab.store import Home


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with one folder, in which nothing is yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def stand_in(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_kubectl_builds_it_without_a_network_or_git(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    stand_in(
        empty / "kubectl", 'echo "words: $1 $2"; echo "path: $PATH"; echo "via: $HTTPS_PROXY${NO_PROXY-}"; echo no >&2'
    )
    built = kustomize(Home(tmp_path / "home"))(Path("/lessons/web"))
    assert built == "words: kustomize /lessons/web\npath: /nonexistent\nvia: http://127.0.0.1:9\n"


def test_a_boxs_kubectl_comes_first(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    assert any_kubectl(home) == "kubectl"
    box = shelved_box(home)
    assert any_kubectl(home) == str(box.kubectl)
    write_manifest(replace(box, origin="a bundle"))
    assert any_kubectl(home) == "kubectl", "no program from another person's file runs on this host"


def test_what_kubectl_says_is_told(empty: Path, tmp_path: Path) -> None:
    stand_in(empty / "kubectl", "echo 'error: no such file: a.yaml' >&2; exit 1")
    with pytest.raises(ScenarioError, match="the add-on /lessons/web cannot be built") as caught:
        kustomize(Home(tmp_path / "home"))(Path("/lessons/web"))
    assert caught.value.details[-1] == "error: no such file: a.yaml"
    assert "without a network" in caught.value.hint


def test_without_a_kubectl_it_is_said_where_one_comes_from(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.boxes.kubectl.list_boxes", lambda _: [])
    monkeypatch.setattr("lab.process.shutil.which", lambda *_, **__: None)
    with pytest.raises(HostError, match="there is no kubectl on this machine") as caught:
        kustomize(Home(tmp_path / "home"))(Path("/lessons/web"))
    assert "klab box build" in caught.value.hint
