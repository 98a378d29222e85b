"""The box of a bundle, or of a copied folder: which one is taken, what is refused, whom it serves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.desk import Desk
from support.shelved import flipped, shelve, shelved_box

from lab import process
from lab.app import boxes as app
from lab.app.boxes import Built
from lab.boxes import store
from lab.boxes.cache import Cache
from lab.boxes.lock import Lock, lock_of, lock_text
from lab.boxes.manifest import DISK, LIBVIRT, MANIFEST, Box, MadeFrom, read_box, write_manifest
from lab.bundles import boxes, signature
from lab.bundles.export_lab import write_bundle
from lab.cli.commands.box import box as command
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError, Conflict, HostError, LabError, NotFound, UsageError
from lab.store import Home

MADE_FROM = MadeFrom("source", {}, {}, {"kubeadm": "ab" * 32}, {})


@dataclass
class Classroom:
    """A box on the instructor's machine, a bundle with it, and a student's machine without any box."""

    desk: Desk
    box: Box
    bundle: Path
    home: Home
    told: list[str]

    def take(self, **options: Any) -> Built:
        self.told.clear()
        return app.build(self.home, **{"bundle": self.bundle, "tell": self.told.append, **options})

    def refused(self, kind: type[LabError], said: str, **options: Any) -> LabError:
        with pytest.raises(kind, match=said) as caught:
            self.take(**options)
        assert caught.value.hint
        assert store.list_boxes(self.home) == []
        return caught.value

    def copied(self, folder: Path, box: Box | None = None) -> Path:
        """A box's manifest and disk on a stick, as `cp` leaves them."""
        box = box or self.box
        target = folder / box.folder.name
        target.mkdir(parents=True)
        for name in (MANIFEST, DISK):
            shutil.copy(box.folder / name, target)
        return target

    def locked(self, **changes: Any) -> Path:
        file = self.desk.lab.home.root / "course.lock.json"
        file.write_text(lock_text(replace(lock_of(replace(self.box, made_from=MADE_FROM)), **changes)))
        return file


@pytest.fixture
def room(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Classroom:
    box = shelve(desk.lab.home, desk.lab.folder, desk.lab.plan)
    desk.machines.power_off(["cp1", "w1"])
    file = write_bundle(desk.lab, "lesson-3", tmp_path / "lesson-3.klab").path
    home = Home(tmp_path / "student")
    monkeypatch.setenv("KLAB_HOME", str(home.root))
    return Classroom(desk, box, file, home, [])


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=True)


# --- taken --------------------------------------------------------------------------------------------


def test_the_box_of_a_bundle(room: Classroom) -> None:
    made = room.take()
    assert (made.box.digest, made.box.recipe, made.box.kubernetes) == (room.box.digest, "debian-13", DEFAULT)
    assert made.taken is not None
    assert (made.taken.place, made.taken.signer) == (room.bundle, None)
    assert sorted(made.box.files) == [DISK, LIBVIRT]
    store.verify(room.home, made.box)
    assert room.told == [
        f"bundle: debian-13 with Kubernetes {DEFAULT} ({room.box.short}) in {room.bundle}, not signed",
        "taking the disk, and comparing it with its digest",
    ]


def test_it_is_no_other_labs_box_until_it_is_trusted(room: Classroom) -> None:
    assert room.take().box.origin == "lesson-3"
    with pytest.raises(BoxError, match="has not been built here") as caught:
        store.find_box(room.home, "debian-13", DEFAULT)
    assert "came with lesson-3" in caught.value.details[0]
    assert f"klab box trust {room.box.short}" in caught.value.hint
    app.trust(room.home, room.box.digest)
    assert store.find_box(room.home, "debian-13", DEFAULT).digest == room.box.digest


def test_a_second_time_it_is_found(room: Classroom) -> None:
    first = room.take().box
    before = first.disk.stat().st_mtime_ns
    assert room.take().box == first
    assert len(room.told) == 1
    assert first.disk.stat().st_mtime_ns == before


def test_a_box_that_was_built_here_stays_one(room: Classroom) -> None:
    home = room.desk.lab.home
    assert app.build(home, bundle=room.bundle, tell=room.told.append).box.origin == ""
    assert read_box(room.box.folder).files.keys() == room.box.files.keys()


def test_no_program_comes_from_a_copied_box(room: Classroom, tmp_path: Path) -> None:
    shutil.copytree(room.box.folder, tmp_path / "stick" / room.box.folder.name)
    made = room.take(bundle=tmp_path / "stick").box
    assert sorted(path.name for path in made.folder.iterdir()) == [DISK, LIBVIRT, MANIFEST]
    assert made.origin == room.box.folder.name


@pytest.mark.parametrize("place", ["stick", "stick/box"])
def test_a_copied_box_from_its_folder_or_the_one_above(room: Classroom, tmp_path: Path, place: str) -> None:
    room.copied(tmp_path / "made").rename(tmp_path / "stick") if place == "stick" else room.copied(
        tmp_path / "stick"
    ).rename(tmp_path / "stick/box")
    made = room.take(bundle=tmp_path / place).box
    assert made.digest == room.box.digest
    assert made.origin == place.rpartition("/")[2]


def test_a_copy_of_a_box_that_says_it_was_built_here(room: Classroom, tmp_path: Path) -> None:
    """What a foreign manifest says of its box's origin does not count."""
    place = room.copied(tmp_path / "stick")
    write_manifest(replace(read_box(place), made_from=MADE_FROM, files={DISK: room.box.files[DISK]}))
    made = room.take(bundle=place).box
    assert made.origin
    assert made.made_from is None


def test_it_waits_for_another_build(room: Classroom) -> None:
    def tell(text: str) -> None:
        room.told.append(text)
        if text.startswith("waiting for"):
            handles[-1].__exit__(None, None, None)

    handles = [Cache(room.home.cache).lock()]
    handles[0].__enter__()
    assert app.build(room.home, bundle=room.bundle, tell=tell).box.digest == room.box.digest
    assert room.told[-1].startswith(f"waiting for process {os.getpid()}")


# --- which one ----------------------------------------------------------------------------------------


def test_the_wanted_one_of_a_stick(room: Classroom, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    room.copied(stick)
    shutil.copy(room.bundle, stick)
    (stick / "notes.txt").write_text("bring chalk")
    (stick / "cut.klab").write_bytes(room.bundle.read_bytes()[:5000])
    other = shelved_box(Home(tmp_path / "other"), b"newer")
    place = room.copied(stick, other)
    write_manifest(replace(read_box(place), kubernetes="1.36.3", files={DISK: other.files[DISK]}))
    error = room.refused(Conflict, "there are 3 boxes there", bundle=stick)
    assert len(error.details) == 3
    assert "cut.klab cannot be used: this bundle is damaged" in room.told[0]
    assert room.take(bundle=stick, kubernetes="1.36").box.digest == other.digest
    assert room.take(bundle=stick, kubernetes=f"v{DEFAULT}").box.digest == room.box.digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kubernetes": "1.36.3"}, "there is no box with Kubernetes 1.36.3 there"),
        ({"name": "debian-12"}, "there is no box debian-12 there"),
        ({"name": "debian-12", "kubernetes": "1.23.0"}, "there is no box debian-12 with Kubernetes 1.23.0 there"),
    ],
)
def test_another_box_than_the_wanted_one(room: Classroom, options: dict[str, str], said: str) -> None:
    error = room.refused(Conflict, said, **options)
    assert error.details == (f"there is debian-13 with Kubernetes {DEFAULT} ({room.box.short}) in {room.bundle}",)


# --- locks --------------------------------------------------------------------------------------------


def test_what_a_lock_names_serves_every_lab(room: Classroom) -> None:
    made = room.take(locked=room.locked()).box
    assert store.find_box(room.home, "debian-13", DEFAULT).digest == room.box.digest
    assert made.made_from == MADE_FROM
    assert lock_of(made).disk == room.box.digest


def test_a_lock_trusts_a_box_that_came_before(room: Classroom) -> None:
    assert room.take().box.origin
    assert room.take(locked=room.locked()).box.origin == ""


def test_a_lock_of_another_disk(room: Classroom) -> None:
    error = room.refused(BoxError, "the box is not the one in the lock", locked=room.locked(disk="cd" * 32))
    assert error.details == (f"in the lock: {'cd' * 32}", f"in {room.bundle}: {room.box.digest}")


def test_a_lock_of_another_version(room: Classroom) -> None:
    room.refused(Conflict, "there is no box debian-13 with Kubernetes 1.36.3", locked=room.locked(kubernetes="1.36.3"))


def test_a_lock_of_an_older_klab_names_no_disk(room: Classroom) -> None:
    file = room.locked()
    data = json.loads(file.read_text())
    del data["disk"]
    file.write_text(json.dumps(data))
    assert "klab box lock" in room.refused(UsageError, "does not name the box's disk", locked=file).hint


# --- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bundle": None, "source": "bundle"}, "--source bundle needs a bundle"),
        ({"source": "release"}, "--source release takes nothing from a bundle"),
        ({"mirrors": ("/media/stick",)}, "--bundle and --mirror are different sources"),
        ({"rebuild": True}, "a bundle's box is taken as it is"),
    ],
)
def test_what_contradicts_itself(room: Classroom, options: dict[str, Any], said: str) -> None:
    room.refused(UsageError, said, **options)


def test_a_file_that_is_cut_off(room: Classroom) -> None:
    os.truncate(room.bundle, room.bundle.stat().st_size // 2)
    assert "it is cut off" in room.refused(UsageError, "this bundle is damaged").details[0]


def test_a_flipped_bit(room: Classroom) -> None:
    file = boxes.offers(room.bundle, print)[0].file
    assert file is not None
    flipped(room.bundle, file.end - 600)  # within the box's disk, the last member
    error = room.refused(UsageError, "this bundle is damaged")
    assert "box/disk.qcow2.gz" in error.details[0]
    assert not list(room.home.boxes.iterdir())


def test_a_flipped_bit_in_a_copied_box(room: Classroom, tmp_path: Path) -> None:
    place = room.copied(tmp_path / "stick")
    flipped(place / DISK, 100_000)
    error = room.refused(BoxError, "is damaged, or klab did not build it", bundle=place)
    assert "SHA-256 is" in error.details[0]


def test_a_copied_box_without_its_disk(room: Classroom, tmp_path: Path) -> None:
    place = room.copied(tmp_path / "stick")
    os.truncate(place / DISK, 5)
    assert "5 bytes instead of" in room.refused(BoxError, "the box in .* is damaged", bundle=place).details[0]
    (place / DISK).unlink()
    assert "missing" in room.refused(BoxError, "the box in .* is damaged", bundle=place).details[0]
    (place / DISK).symlink_to("/dev/zero")
    assert "not a regular file" in room.refused(BoxError, "the box in .* is damaged", bundle=place).details[0]


def test_a_copied_box_that_is_called_otherwise_than_its_disk(room: Classroom, tmp_path: Path) -> None:
    place = room.copied(tmp_path / "stick")
    write_manifest(replace(read_box(place), digest="ef" * 32))
    room.refused(BoxError, "the box in .* is damaged", bundle=place)


def test_a_copied_box_that_lies_on_a_file_of_the_host(room: Classroom, tmp_path: Path) -> None:
    place = room.copied(tmp_path / "stick")
    (tmp_path / "secret").write_bytes(b"root:x:" * 10_000)
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", tmp_path / "secret", place / DISK]
    process.run(argv, timeout=60)
    size, digest = (place / DISK).stat().st_size, store.digest_file(place / DISK)
    files = {DISK: replace(room.box.files[DISK], size=size, sha256=digest)}
    write_manifest(replace(read_box(place), digest=digest, files=files))
    error = room.refused(BoxError, "klab did not build it", bundle=place)
    assert "it names a backing file" in error.details[0]


def test_a_bundle_without_its_box(room: Classroom, tmp_path: Path) -> None:
    bare = write_bundle(room.desk.lab, "bare", tmp_path / "bare.klab", with_box=False).path
    error = room.refused(UsageError, "the bundle bare was written without its box", bundle=bare)
    assert "--without-box" in error.hint


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda place: None, NotFound, "there is no file"),
        (lambda place: place.write_text("a shopping list"), UsageError, "is not a bundle"),
        (lambda place: place.mkdir(), NotFound, "there is no bundle with a box in"),
        (os.mkfifo, UsageError, "is a FIFO"),
    ],
)
def test_what_is_neither(
    room: Classroom, tmp_path: Path, make: Callable[[Path], object], kind: type[LabError], said: str
) -> None:
    make(tmp_path / "place")
    room.refused(kind, said, bundle=tmp_path / "place")


def test_a_place_that_cannot_be_read(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(boxes, "open_bundle", refuse)  # root may read everything
    error = room.refused(HostError, "cannot be read")
    assert error.details == ("Permission denied",)


def test_a_full_disk(room: Classroom, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(boxes.shutil, "disk_usage", lambda _: usage)
    room.refused(HostError, "the box needs 0.0 GiB of free disk")


def test_a_list_of_allowed_signers_counts_here_too(room: Classroom, tmp_path: Path) -> None:
    key = tmp_path / "course"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], timeout=60)
    room.home.root.mkdir()
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    (room.home.root / signature.ALLOWED_SIGNERS).write_text(f"teacher@example.org {public}\n")
    room.refused(UsageError, "this bundle is not signed")
    room.refused(UsageError, "this bundle is not signed", bundle=room.copied(tmp_path / "stick"))
    signed = tmp_path / "signed.klab"
    write_bundle(room.desk.lab, "signed", signed, sign=lambda text: signature.sign(key, text))
    made = room.take(bundle=signed)
    assert made.taken is not None
    assert made.taken.signer is not None
    assert made.taken.signer.principal == "teacher@example.org"
    assert "signed with teacher@example.org" in room.told[0]


# --- the command --------------------------------------------------------------------------------------


def test_the_command_says_whose_it_is(room: Classroom) -> None:
    done = run("build", "--bundle", room.bundle)
    assert done.exit_code == 0, done.exception
    assert f"compare its digest with the author's, {room.box.digest}" in done.stderr
    assert f"klab box trust {room.box.short}" in done.stderr
    assert "came with lesson-3" in run("list").stdout
    found = json.loads(run("build", "--source", "bundle", "--bundle", room.bundle, "--json").stdout)
    assert (found["origin"], found["bundle"], found["signer"]) == ("lesson-3", str(room.bundle), None)


def test_the_command_with_a_lock(room: Classroom) -> None:
    done = run("build", "--bundle", room.bundle, "--locked", room.locked())
    assert done.exit_code == 0, done.exception
    assert "klab box trust" not in done.stderr


def test_a_lock_with_a_disk_that_is_none(room: Classroom) -> None:
    assert "disk is 'x'" in room.refused(UsageError, "is no lock", locked=room.locked(disk="x")).details[0]


def test_a_rebuild_is_not_compared_with_a_box_without_a_list_of_files(
    room: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.take()
    trusted = app.trust(room.home, room.box.digest)
    monkeypatch.setattr("lab.boxes.build.build_box", lambda *_, **__: trusted)
    assert app.build(room.home, rebuild=True, tell=print).rebuilt is None


def test_the_trust_of_a_box_that_was_built_here_loses_nothing(room: Classroom) -> None:
    home = room.desk.lab.home
    write_manifest(replace(room.box, made_from=MADE_FROM))
    assert app.trust(home, room.box.digest).made_from == MADE_FROM


def test_a_lock_reads_as_it_was_written(room: Classroom) -> None:
    assert json.loads(lock_text(Lock("debian-13", DEFAULT, MADE_FROM, "ab" * 32)))["disk"] == "ab" * 32
    assert asdict(MADE_FROM)["programs"] == {"kubeadm": "ab" * 32}
