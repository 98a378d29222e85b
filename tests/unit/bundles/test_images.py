"""Bundles of labs to whose nodes klab has brought images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk
from support.fake_lab import opener
from support.saved_images import CONTAINERD, image, layout_files, write_tar
from support.shelved import shelve

from lab.bundles import format as form
from lab.bundles.export_lab import write_bundle
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.import_lab import Request, create_from_bundle, plan_of
from lab.cluster.lab import Lab
from lab.errors import ImageError, UsageError
from lab.host.profile import HostProfile
from lab.images.record import LabImage, images_of, keep
from lab.images.sources import Sources, parse_source
from lab.images.store import Store
from lab.scenario.references import parse_reference
from lab.store import Home

REF = "docker.io/team/app:1"


def written(desk: Desk, target: Path, **how: Any) -> BundleFile:
    file = write_tar(target.with_suffix(".tar"), layout_files([(image(indexed=True), {CONTAINERD: REF})]))
    (found,) = Sources(Store(desk.lab.home), lambda _text: None).take([parse_source(str(file))])
    keep(desk.lab.folder, [LabImage.of(found)])
    shelve(desk.lab.home, desk.lab.folder, desk.lab.plan)
    desk.machines.power_off(["cp1", "w1"])
    return write_bundle(desk.lab, "lesson", target, **how)


def imported(file: BundleFile, root: Path) -> Lab:
    plan = plan_of(file.bundle)
    home = Home(root)
    lab = Lab(home, home.lab(plan.name), plan, opener(), 60)
    create_from_bundle(Request(lab, file, "fake", HostProfile(accelerated=True, dilation=1.0)))
    return lab


def test_they_go_along_and_serve_that_lab_alone(desk: Desk, tmp_path: Path) -> None:
    made = written(desk, tmp_path / "lesson.klab")
    assert json.loads(made.manifest)["format"] == form.WITH_IMAGES
    file = open_bundle(tmp_path / "lesson.klab")
    file.verify(lambda _size: None)
    lab = imported(file, tmp_path / "student")
    (found,) = images_of(lab.folder)
    assert found == images_of(desk.lab.folder)[0]
    store = Store(lab.home)
    assert store.whole(found.reference, found.revisions[0]) is not None, "for nodes that are added later"
    assert store.names() == {}, "no other lab gets it by its name"
    assert store.find(parse_reference(REF)) is None


def test_what_klab_has_built_is_known_by_its_files_and_not_by_the_manifest(desk: Desk, tmp_path: Path) -> None:
    own = image(labels={"org.opencontainers.image.vendor": "klab"})
    file = write_tar(tmp_path / "own.tar", layout_files([(own, {CONTAINERD: REF})]))
    store = Store(desk.lab.home)
    made = [written(desk, tmp_path / "first.klab")]
    (found,) = Sources(store, lambda _text: None).take([parse_source(str(file))])
    keep(desk.lab.folder, [LabImage.of(found, store)])
    assert images_of(desk.lab.folder)[0].own_build
    made.append(write_bundle(desk.lab, "lesson", tmp_path / "lesson.klab"))
    assert [each.manifest.count(b"own_build") for each in made] == [0, 0]
    lab = imported(open_bundle(tmp_path / "lesson.klab"), tmp_path / "student")
    assert images_of(lab.folder)[0].own_build


def test_a_bundle_without_its_box_names_them(desk: Desk, tmp_path: Path) -> None:
    made = written(desk, tmp_path / "lesson.klab", with_box=False)
    assert [image.ref for image in made.bundle.images] == [REF]
    assert not [member for member in made.bundle.members if member.name.startswith("images/")]


def test_what_this_machine_has_lost_is_left_out(desk: Desk, tmp_path: Path) -> None:
    written(desk, tmp_path / "first.klab")
    (found,) = images_of(desk.lab.folder)
    (desk.lab.home.images / "blobs/sha256" / found.revisions[0]).unlink()
    made = write_bundle(desk.lab, "lesson", tmp_path / "lesson.klab")
    assert not [member for member in made.bundle.members if member.name.startswith("images/")]
    assert images_of(imported(made, tmp_path / "student").folder) == (found,)


def test_a_damaged_blob_ends_it(desk: Desk, tmp_path: Path) -> None:
    written(desk, tmp_path / "first.klab")
    (found,) = images_of(desk.lab.folder)
    blob = desk.lab.home.images / "blobs/sha256" / max(found.files)
    blob.write_bytes(bytes(len(blob.read_bytes())))
    with pytest.raises(ImageError, match="an image that this machine keeps is damaged"):
        write_bundle(desk.lab, "lesson", tmp_path / "lesson.klab")
    assert not (tmp_path / "lesson.klab").exists()


def test_one_without_images_is_as_klab_wrote_them_before(desk: Desk, tmp_path: Path) -> None:
    shelve(desk.lab.home, desk.lab.folder, desk.lab.plan)
    desk.machines.power_off(["cp1", "w1"])
    made = write_bundle(desk.lab, "lesson", tmp_path / "lesson.klab")
    found = json.loads(made.manifest)
    assert found["format"] == form.FORMAT
    assert "images" not in found


def test_what_a_stranger_may_not_say(desk: Desk, tmp_path: Path) -> None:
    bundle = written(desk, tmp_path / "lesson.klab").bundle
    (found,) = bundle.images
    for images in (
        (replace(found, ref="team/app:1"),),
        (replace(found, ref=f"{REF}; reboot"),),
        (replace(found, files={**found.files, "../../x": 3}),),
        (found, found),
    ):
        with pytest.raises(UsageError, match="this bundle is damaged"):
            form.from_json(form.to_json(replace(bundle, images=images)))
    name = next(each for each in found.files if each not in found.revisions)
    others = replace(found, files={**found.files, name: found.files[name] + 1})
    with pytest.raises(UsageError, match="its size is not the one given with the image") as caught:
        form.from_json(form.to_json(replace(bundle, images=(others,))))
    assert "size" in caught.value.details[0]
