"""Files and folders with images: what is taken, and what is told of those that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.saved_images import CONTAINERD, REF, image, layout_files, saved_files, sha, write_folder, write_tar

from lab.errors import HostError, ImageError, NotFound, UsageError
from lab.images import archive
from lab.images.archive import is_place, parse_layout, parse_saved, take_all
from lab.images.sources import Sources, parse_source
from lab.images.store import Image, Store
from lab.scenario.references import parse_reference
from lab.store import Home

APP = {CONTAINERD: "docker.io/team/app:1"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Home(tmp_path / "klab"))


def take(store: Store, path: Path, name: str | None = None) -> list[Image]:
    with store.lock():
        return take_all(store, path, parse_reference(name) if name else None, lambda _size: None)


def names(found: list[Image]) -> list[str]:
    return [str(each.reference) for each in found]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_layout_in_an_archive_keeps_its_digests(store: Store, tmp_path: Path, mode: str) -> None:
    made = image(indexed=True)
    (found,) = take(store, write_tar(tmp_path / "app.tar", layout_files([(made, APP)]), mode))
    assert (found.hex, found.manifest.hex) == (made.top, made.manifest)
    assert {file.name for file in store.blobs.iterdir()} == set(made.blobs)
    assert store.find(parse_reference("team/app:1")) == found
    assert not list(store.folder.glob("*.partial"))


def test_a_folder_stays_as_it_is(store: Store, tmp_path: Path) -> None:
    one, two = image(("base", "one")), image(("base", "two"))
    files = layout_files([(one, APP), (two, {REF: "registry.lan:5000/two:2"})])
    folder = write_folder(tmp_path / "layout", files)
    assert names(take(store, folder)) == ["docker.io/team/app:1", "registry.lan:5000/two:2"]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(files)
    assert len(list(store.blobs.iterdir())) == len(set(one.blobs) | set(two.blobs)), "what both have is here once"


def test_what_the_store_has_is_not_written_again(store: Store, tmp_path: Path) -> None:
    made = image()
    file = write_tar(tmp_path / "app.tar", layout_files([(made, APP)]))
    take(store, file)
    before = {path: path.stat().st_mtime_ns for path in store.blobs.iterdir() if path.name not in {made.manifest}}
    take(store, file)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("notes", [{}, {REF: "latest"}])
def test_an_image_without_a_name_gets_one(store: Store, tmp_path: Path, notes: dict[str, str]) -> None:
    file = write_tar(tmp_path / "app.tar", layout_files([(image(), notes)]))
    with pytest.raises(UsageError, match="holds an image without a name") as caught:
        take(store, file)
    assert "--name NAME:TAG" in caught.value.hint
    assert names(take(store, file, "app:1")) == ["docker.io/library/app:1"]


def test_a_name_is_for_one(store: Store, tmp_path: Path) -> None:
    files = layout_files([(image(("one",)), APP), (image(("two",)), {REF: "x/y:1"})])
    with pytest.raises(UsageError, match="holds 2 images, and --name is for one"):
        take(store, write_tar(tmp_path / "app.tar", files), "app:1")
    with pytest.raises(UsageError, match="--name is for one file"):
        Sources(store, print).take([parse_source("nginx")], parse_reference("x"))


@pytest.mark.parametrize("indexed", [False, True])
def test_another_platform_is_told(store: Store, tmp_path: Path, indexed: bool) -> None:
    file = write_tar(tmp_path / "app.tar", layout_files([(image(machine="arm64", indexed=indexed), APP)]))
    with pytest.raises(ImageError, match="has no image for linux/amd64") as caught:
        take(store, file)
    assert "arm64" in str(caught.value) or "no image for linux/amd64" in caught.value.details[0]
    assert "--platform linux/amd64" in caught.value.hint
    assert store.names() == {}


def test_an_index_whose_image_was_left_out(store: Store, tmp_path: Path) -> None:
    made = image(indexed=True)
    del made.blobs[made.manifest]
    with pytest.raises(ImageError, match="has no image for linux/amd64"):
        take(store, write_tar(tmp_path / "app.tar", layout_files([(made, APP)])))


def test_blobs_that_are_missing_or_others(store: Store, tmp_path: Path) -> None:
    made = image()
    layer = json.loads(made.blobs[made.manifest])["layers"][0]["digest"].removeprefix("sha256:")
    for blobs in ({**made.blobs, layer: b"another"}, {k: v for k, v in made.blobs.items() if k != layer}):
        made.blobs = blobs
        with pytest.raises(ImageError, match=r"docker\.io/team/app:1 is damaged") as caught:
            take(store, write_tar(tmp_path / "app.tar", layout_files([(made, APP)])))
        assert layer in caught.value.details[0]
    made.blobs = {made.manifest: b"{}"}
    with pytest.raises(ImageError, match="are damaged"):
        take(store, write_tar(tmp_path / "app.tar", layout_files([(made, APP)])))
    assert store.names() == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not an image, or is cut off"),
        (b"a text", "is not an image, or is cut off"),
        (b"\x28\xb5\x2f\xfd" + bytes(2000), "is not an image, or is cut off"),
        (b"\x1f\x8b\x08\0" + bytes(20), "is not an image, or is cut off|are damaged"),
    ],
)
def test_a_file_that_is_no_image(store: Store, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "app.tar.zst").write_bytes(data)
    with pytest.raises((UsageError, ImageError), match=said) as caught:
        take(store, tmp_path / "app.tar.zst")
    assert caught.value.hint


def test_an_archive_that_is_cut_off(store: Store, tmp_path: Path) -> None:
    for mode in ("w", "w:gz"):
        file = write_tar(tmp_path / "app.tar", layout_files([(image(size=90_000), APP)]), mode)
        file.write_bytes(file.read_bytes()[:60_000])
        with pytest.raises((UsageError, ImageError), match=r"cut off|damaged"):
            take(store, file)
    assert store.names() == {}
    assert not list(store.folder.glob("*.partial"))


def test_other_archives_and_folders(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not an image") as caught:
        take(store, write_tar(tmp_path / "other.tar", {"README": b"x", "../../etc/passwd": b"x"}))
    assert "docker save" in caught.value.hint
    with pytest.raises(UsageError, match="is not an image"):
        take(store, tmp_path)
    with pytest.raises(UsageError, match="is not an image"):
        take(store, write_tar(tmp_path / "none.tar", layout_files([])))
    with pytest.raises(NotFound, match="there is no file"):
        take(store, tmp_path / "gone.tar")
    with pytest.raises(UsageError, match="is a character device"):
        take(store, Path("/dev/null"))


def test_a_full_disk_is_told_before(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_tar(tmp_path / "app.tar", layout_files([(image(), APP)]))
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(HostError, match="there is no room on this machine for the images") as caught:
        take(store, file)
    assert "klab image prune" in caught.value.hint


def test_what_a_layouts_index_says() -> None:
    entries = parse_layout(layout_files([(made := image(), APP)])["index.json"].decode())
    assert [(each.hex, each.names) for each in entries] == [(made.top, ("docker.io/team/app:1",))]
    for text in ("[]", "{}", '{"manifests": [7]}', '{"manifests": [{"digest": "sha256:AB"}]}', "{"):
        with pytest.raises(ValueError, match=r".+"):
            parse_layout(text)


def test_what_a_saved_archive_says() -> None:
    assert parse_saved(saved_files(["a:1", "b:2"])["manifest.json"].decode()) == [["a:1", "b:2"]]
    assert parse_saved('[{"RepoTags": null}, {"RepoTags": [7, "x:1"]}, {}]') == [[], ["x:1"], []]
    for text in ("{}", "[7]", "[", "null"):
        with pytest.raises(ValueError, match=r".+"):
            parse_saved(text)


def test_what_a_word_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nginx").mkdir()
    (tmp_path / "app").write_text("x")
    assert not is_place("nginx"), "a folder that has no layout does not hide an image"
    assert is_place("app")
    for word in ("./nginx", "/x", "~/x", "app.tar", "app.tar.gz", "X.TGZ"):
        assert is_place(word)
    write_folder(tmp_path / "nginx", {"oci-layout": b"{}"})
    assert is_place("nginx")
    plain = parse_source("http://hub.lan:5000/app:1")
    assert (str(plain.reference), plain.plain) == ("hub.lan:5000/app:1", True)
    with pytest.raises(UsageError, match="must be lower-case"):
        parse_source("NGINX")


def test_no_file_is_written_by_a_name_of_the_archives(store: Store, tmp_path: Path) -> None:
    files = layout_files([(image(), APP)]) | {"../escaped": b"x", "blobs/sha256/../../../escaped": b"x"}
    files["blobs/sha256/" + "a" * 63 + "/"] = b"x"
    take(store, write_tar(tmp_path / "app.tar", files))
    assert not list(tmp_path.rglob("escaped"))
    assert sha(b"x") not in {file.name for file in store.blobs.iterdir()}
