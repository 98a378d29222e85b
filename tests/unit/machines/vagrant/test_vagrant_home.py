"""Vagrant's boxes, looked into without Vagrant."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machines.vagrant import vagrant_home
from lab.machines.vagrant.command import BOX_SECONDS


def test_vagrants_folder_is_where_vagrant_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vagrant_home.vagrant_home() == tmp_path / "home" / ".vagrant.d"
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "v"))
    assert vagrant_home.vagrant_home() == tmp_path / "v"


@pytest.mark.parametrize("architecture", ["", "amd64"])
def test_a_box_is_held_that_is_whole(tmp_path: Path, architecture: str) -> None:
    def held(version: str = "1.0.0", provider: str = "libvirt") -> bool:
        return vagrant_home.holds("klab/x", version, provider, ["metadata.json", "box.img"])

    assert not held()
    folder = vagrant_home.vagrant_home() / "boxes" / "klab-VAGRANTSLASH-x" / "1.0.0" / "libvirt" / architecture
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{}")
    assert not held(), "Vagrant was killed while it added it"
    (tmp_path / "disk.qcow2").touch()
    (folder / "box.img").symlink_to(tmp_path / "disk.qcow2")
    assert held()
    assert not held(version="2.0.0")
    assert not held(provider="virtualbox")
    (tmp_path / "disk.qcow2").unlink()
    assert not held(), "its disk lies elsewhere now, or nowhere"


def test_vagrant_forgets_a_box_of_klabs_and_no_other(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    disk.touch()
    boxes = vagrant_home.vagrant_home() / "boxes"
    names = [vagrant_home.box_name("deb@1a2b"), "klab/deb-1a"]
    names += [vagrant_home.box_name("deb@1a2b", vagrant_home.sized_box(gib)) for gib in (20, 40)]
    for name in names:
        folder = boxes / name.replace("/", "-VAGRANTSLASH-") / "1.0.0" / "libvirt"
        folder.mkdir(parents=True)
        (folder / "box.img").symlink_to(disk)
    (boxes / "debian-VAGRANTSLASH-trixie64").mkdir()
    for _ in range(2):
        for file in ("", "virtualbox*"):
            for entry in vagrant_home.entries("deb@1a2b", file):
                vagrant_home.forget(entry)
    left = ["debian-VAGRANTSLASH-trixie64", "klab-VAGRANTSLASH-deb-1a"]
    assert sorted(folder.name for folder in boxes.iterdir()) == left
    assert disk.exists(), "Vagrant has a link to it"


def test_a_klab_waits_for_the_one_that_adds_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a minute and more on a slow machine, which is longer than other locks are waited for."""
    waits: list[float] = []

    @contextlib.contextmanager
    def locked(_file: Path, _what: str, *, patience: float) -> Iterator[None]:
        waits.append(patience)
        yield

    monkeypatch.setattr(vagrant_home.locks, "locked", locked)
    with vagrant_home.locked():
        assert waits[0] >= 2 * BOX_SECONDS
