"""A box of a cloud image: converted, nothing else; found again; like every other box afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.cloud_images import MIB, write_qcow2, write_raw

from lab import process, resources
from lab.app import boxes
from lab.boxes import cloud_image, removal, store
from lab.boxes.lock import lock_of
from lab.boxes.manifest import DISK, LIBVIRT, MANIFEST, Box, read_box, write_manifest
from lab.cli.commands.box import box as command
from lab.errors import BoxError, Conflict, HostError, LabError, NotFound, UsageError
from lab.scenario.catalog import load_catalog
from lab.scenario.cloud_images import CloudImage
from lab.store import Home

NAME = "ubuntu-24.04"
IMAGE = load_catalog().images[NAME]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "store"))
    return Home(tmp_path / "store")


def made(home: Home, file: Path, *, vmdk: bool = False) -> tuple[Box, list[str]]:
    said: list[str] = []
    return boxes.build(home, NAME, image=file, vmdk=vmdk, tell=said.append).box, said


def content(image: Path, kind: str) -> bytes:
    raw = image.with_name("content.raw")
    process.run(["qemu-img", "convert", "-f", kind, "-O", "raw", image, raw], timeout=60)
    return raw.read_bytes()


@pytest.mark.parametrize("options", [("-c",), ("-o", "compat=0.10")])
def test_the_disk_is_the_images_on_whole_gib(home: Home, tmp_path: Path, options: tuple[str, ...]) -> None:
    file = write_qcow2(tmp_path / IMAGE.file, 8, *options)
    before = file.read_bytes()
    found, _ = made(home, file)
    assert (found.name, found.recipe, found.kubernetes, found.title) == (NAME, NAME, "", NAME)
    assert found.virtual_mib == 1024
    disk = content(found.disk, "qcow2")
    assert len(disk) == 1 << 30
    assert disk[: 8 * MIB] == content(file, "qcow2")
    assert not disk[8 * MIB :].strip(b"\0")
    assert sorted(each.name for each in found.folder.iterdir()) == sorted([DISK, LIBVIRT, MANIFEST, "content.raw"])
    with tarfile.open(found.vagrant_box) as tar:
        assert json.load(tar.extractfile("metadata.json"))["virtual_size"] == 1  # type: ignore[arg-type]
    assert file.read_bytes() == before


def test_a_raw_image_and_what_it_was_made_of(home: Home, tmp_path: Path) -> None:
    file = write_raw(tmp_path / "own.raw")
    found, _ = made(home, file)
    assert found.made_from is not None
    assert found.made_from.source == "image"
    assert found.made_from.addresses == {"file": "own.raw", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert read_box(found.folder) == found
    store.verify(home, found)
    assert store.find_box(home, NAME, "") == found


def test_the_same_file_again_is_there_already(home: Home, tmp_path: Path) -> None:
    file = write_qcow2(tmp_path / IMAGE.file)
    first, steps = made(home, file)
    assert any("converting" in step for step in steps)
    again, steps = made(home, file.rename(tmp_path / "copy.img"))
    assert again == first
    assert not any("converting" in step for step in steps)
    other, _ = made(home, write_raw(tmp_path / "newer.raw", 16))
    assert store.list_boxes(home)[0] == other
    assert removal.prune(home) == [first.folder.name]
    removal.remove(home, other)
    assert store.list_boxes(home) == []


def test_a_disk_that_a_bundle_brought_is_then_ones_own(home: Home, tmp_path: Path) -> None:
    file = write_qcow2(tmp_path / IMAGE.file)
    found, _ = made(home, file)
    write_manifest(replace(found, origin="lesson-3", inputs="", made_from=None))
    again, _ = made(home, file)
    assert again == found
    assert store.find_box(home, NAME, "") == found


def test_a_killed_one_leaves_nothing_in_the_way(home: Home, tmp_path: Path) -> None:
    left = home.boxes / f"{NAME}.partial"
    left.mkdir(parents=True)
    (left / DISK).write_bytes(b"half")
    made(home, write_qcow2(tmp_path / IMAGE.file))
    assert not left.exists()


def test_a_damaged_one_is_told_with_the_command_that_makes_it(home: Home, tmp_path: Path) -> None:
    file = write_qcow2(tmp_path / IMAGE.file)
    found, _ = made(home, file)
    os.truncate(found.disk, 1000)
    with pytest.raises(BoxError, match="damaged") as caught:
        made(home, file)
    assert f"klab box build {NAME} --image FILE" in caught.value.hint


def test_virtualbox_gets_its_disk(home: Home, tmp_path: Path) -> None:
    found, _ = made(home, write_qcow2(tmp_path / IMAGE.file), vmdk=True)
    assert found.vmdk.is_file()
    file = store.vagrant_box(home, found, "virtualbox", [20])
    assert file.name == "virtualbox-20g.box"


def refused(error: type[LabError], home: Home, name: str | None = NAME, **options: Any) -> LabError:
    with pytest.raises(error) as caught:
        boxes.build(home, name, tell=print, **options)
    assert caught.value.hint
    return caught.value


def test_without_the_image_it_says_where_that_is(home: Home) -> None:
    error = refused(UsageError, home)
    assert IMAGE.address in "\n".join(error.details)
    assert IMAGE.checksums in "\n".join(error.details)
    assert error.hint == f"then klab box build {NAME} --image {IMAGE.file}"


def test_create_says_so_as_well(home: Home) -> None:
    with pytest.raises(BoxError) as caught:
        store.find_box(home, NAME, "")
    assert caught.value.message == f"the box {NAME} has not been built here"
    assert caught.value.hint == (
        f"klab box build {NAME} --image FILE; klab box build {NAME} says where FILE is published"
    )


@pytest.mark.parametrize("name", [None, "debian-13", "ubuntu"])
def test_a_box_that_is_not_made_of_an_image(home: Home, tmp_path: Path, name: str | None) -> None:
    error = refused(UsageError, home, name, image=write_raw(tmp_path / "a.raw"))
    assert "rocky-9 (Rocky Linux 9)" in error.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kubernetes": "1.35.4"}, "--kubernetes"),
        ({"source": "release"}, "--source"),
        ({"source": "mirror", "mirrors": ["/a"]}, "--source and --mirror"),
        ({"locked": Path("a.lock.json")}, "--locked"),
        ({"rebuild": True}, "--rebuild"),
    ],
)
def test_what_is_about_kubernetes_does_not_go_with_it(home: Home, options: dict[str, Any], said: str) -> None:
    assert said in refused(UsageError, home, image=Path("a.img"), **options).message
    assert said in refused(UsageError, home, **options).message


def test_a_bundle_and_an_image_are_two_sources(home: Home) -> None:
    refused(UsageError, home, image=Path("a.img"), bundle=Path("a.klab"))


def test_a_disk_that_is_too_large_for_the_nodes(home: Home, tmp_path: Path) -> None:
    file = write_raw(tmp_path / IMAGE.file)
    os.truncate(file, (IMAGE.disk << 30) + 1)
    error = refused(BoxError, home, image=file)
    assert "too large" in error.message
    assert IMAGE.address in error.hint
    assert not home.boxes.exists()


def test_no_room(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = cloud_image.shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(cloud_image.shutil, "disk_usage", lambda _: usage)
    assert "of free disk" in refused(HostError, home, image=write_raw(tmp_path / "a.raw")).message


def test_a_missing_file(home: Home, tmp_path: Path) -> None:
    error = refused(NotFound, home, image=tmp_path / "nothing.img")
    assert IMAGE.address in error.hint


def test_there_is_nothing_to_lock(home: Home, tmp_path: Path) -> None:
    found, _ = made(home, write_raw(tmp_path / "a.raw"))
    with pytest.raises(Conflict, match="cloud image"):
        lock_of(found)
    with pytest.raises(NotFound, match="no box has been built here"):
        boxes.lock(home)


def test_the_command_line(home: Home, tmp_path: Path) -> None:
    file = write_qcow2(tmp_path / IMAGE.file)
    done = CliRunner().invoke(command, ["build", NAME, "--image", str(file)])
    assert done.exit_code == 0
    assert "converting it: qcow2, a disk of 0.0 GiB" in done.stderr
    listed = CliRunner().invoke(command, ["list"]).stdout.splitlines()[-1].split()
    assert (listed[0], listed[2], listed[-1]) == (NAME, "-", "image")
    (described,) = json.loads(CliRunner().invoke(command, ["list", "--json"]).stdout)
    assert described["kubernetes"] is None
    assert CliRunner().invoke(command, ["verify", NAME]).exit_code == 0
    assert CliRunner().invoke(command, ["rm", NAME]).exit_code == 0


# --- recipes and their documentation ------------------------------------------------------------------


@pytest.mark.parametrize(("name", "image"), load_catalog().images.items())
def test_a_recipe_and_the_table_in_the_docs_agree(name: str, image: CloudImage) -> None:
    assert image.address.startswith("https://")
    assert image.address.endswith("/")
    page = (resources.path("docs") / "how-to/cloud-images.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert f"[{image.file}]({image.address})" in row
    assert image.system in row
