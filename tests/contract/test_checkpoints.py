"""Bundles of a real lab, of tiny machines: the same bytes elsewhere, and kill -9 at each step leaves old or new."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.offspring import Offspring

from lab.bundles.file import open_bundle
from lab.host.private_libvirt import PrivateLibvirt
from lab.store import Home

pytestmark = pytest.mark.incremental

LIMIT = 600


class Driver:
    """Runs checkpoints_driver.py in one home, about the lab of one name."""

    def __init__(self, offspring: Offspring, home: Home, name: str, box: Path) -> None:
        self.offspring, self.home, self.name = offspring, home, name
        self._words = [str(home.root), name, str(box)]

    def run(self, *steps: str, killed: bool = False) -> dict[str, Any]:
        """What the steps said, by step."""
        homes = {"KLAB_HOME": str(self.home.root), "VAGRANT_HOME": str(self.home.root / "vagrant.d")}
        done = self.offspring.run([*self._words, *steps], LIMIT, homes)
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stdout + done.stderr
        said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        return dict(reversed(said))  # of several errors the first, which is the cause of the others

    def well(self, *steps: str) -> dict[str, Any]:
        """The same, without an error."""
        said = self.run(*steps)
        assert "error" not in said, said
        return said


@pytest.fixture(scope="module")
def teacher(real_home: Home, tiny_box: Path) -> Iterator[Driver]:
    """A lab that was noted in and stopped."""
    with Offspring("contract.checkpoints_driver") as offspring:
        driver = Driver(offspring, real_home, "lesson", tiny_box)
        driver.well("up", "note=first", "stop")
        yield driver
        if real_home.lab("lesson").exists:
            driver.run("destroy")


@pytest.fixture(scope="module")
def student(teacher: Driver, tiny_box: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Another home, with a libvirt of its own and no box."""
    home = Home(tmp_path_factory.mktemp("student"))
    driver = Driver(teacher.offspring, home, "mine", tiny_box)
    yield driver
    if home.lab("mine").exists:
        driver.run("destroy")
    PrivateLibvirt(home).stop()


@pytest.fixture(scope="module")
def lesson(teacher: Driver, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("web") / "lesson.klab"
    said = teacher.well(f"checkpoint={file}")
    assert said["checkpoint"] == file.stat().st_size
    return file


def test_the_same_bytes_under_another_name_in_another_home(teacher: Driver, student: Driver, lesson: Path) -> None:
    assert student.run("exists", "boxes") == {"exists": False, "boxes": []}
    said = student.well(f"from={lesson}", "disks", "boxes", "vagrant")
    assert said["from"] == [False, ["cp1", "w1"]]
    assert said["disks"] == ["first"]
    assert said["boxes"] == [open_bundle(lesson).bundle.box.digest]
    assert said["vagrant"] == {"cp1": "running", "w1": "running"}


def test_it_is_a_lab_like_any_other(student: Driver, lesson: Path) -> None:
    said = student.well("note=second", "take=a", "note=third", "restore=a", "disks", "stop", "states")
    assert said["disks"] == ["second"]
    assert said["states"] == ["stopped"]
    said = student.well(f"from={lesson}", "disks", "stop", "up again", "vagrant")
    assert said["from"] == [True, ["cp1", "w1"]]
    assert said["disks"] == ["second"], "what is there is started, not recreated"
    assert said["vagrant"] == {"cp1": "running", "w1": "running"}, "vagrant up takes them for its own"
    said = student.well("destroy")
    assert said["leftovers"] == []
    assert student.run("exists")["exists"] is False


def test_the_teachers_lab_was_not_touched(teacher: Driver, lesson: Path) -> None:
    assert teacher.well("start", "disks", "states", "stop") == {"disks": ["first"], "states": ["running"]}


@pytest.mark.parametrize("moment", ["begin", "add", "add:2+0.2", "add:5", "seal"])
def test_a_kill_while_a_bundle_is_written_leaves_the_old_one(teacher: Driver, lesson: Path, moment: str) -> None:
    before = lesson.read_bytes()
    teacher.run(f"kill={moment}", f"checkpoint={lesson}", killed=True)
    assert lesson.read_bytes() == before
    # The next one clears up what was left.
    teacher.well(f"checkpoint={lesson}")
    assert [file.name for file in lesson.parent.iterdir()] == [lesson.name]
    open_bundle(lesson).verify(lambda _size: None)


@pytest.mark.parametrize("moment", ["verify", "put", "write", "wrap", "folder"])
def test_a_kill_before_there_is_a_lab_leaves_none(student: Driver, lesson: Path, moment: str) -> None:
    shutil.rmtree(student.home.boxes, ignore_errors=True)
    student.run(f"kill={moment}", f"from={lesson}", killed=True)
    assert student.run("exists")["exists"] is False


@pytest.mark.parametrize("moment", ["secrets", "make", "write:2", "place", "define", "define:2"])
def test_a_kill_while_a_lab_is_made_leaves_what_the_same_command_finishes(
    student: Driver, lesson: Path, moment: str
) -> None:
    student.run(f"kill={moment}", f"from={lesson}", killed=True)
    assert student.run("exists")["exists"] is True
    assert student.well(f"make={lesson}", f"same={lesson}", "states") == {
        "make": False,
        "same": ["cp1", "w1"],
        "states": ["stopped"],
    }
    assert student.well("destroy")["leftovers"] == []


@pytest.mark.parametrize("moment", ["make:2", "start", "start+1"])
def test_a_lab_that_was_made_after_a_kill_runs(student: Driver, lesson: Path, moment: str) -> None:
    student.run(f"kill={moment}", f"from={lesson}", killed=True)
    assert student.run("exists")["exists"] is True
    assert student.well(f"from={lesson}", "disks", "states") == {
        "from": [moment.startswith("start"), ["cp1", "w1"]],
        "disks": ["first"],
        "states": ["running"],
    }
    assert student.well("destroy")["leftovers"] == []


def test_a_half_made_lab_can_be_destroyed(student: Driver, lesson: Path) -> None:
    student.run("kill=define:2", f"from={lesson}", killed=True)
    assert student.well("destroy")["leftovers"] == []


def test_two_of_the_same_machines_are_refused_before_anything_is_made(teacher: Driver, lesson: Path) -> None:
    other = Driver(teacher.offspring, teacher.home, "twin", lesson)
    kind, message, *_ = other.run(f"from={lesson}")["error"]
    assert kind == "Conflict"
    assert "lab 'lesson' has the same machines" in message
    assert other.run("exists")["exists"] is False


def test_snapshots_of_a_running_lab_are_kept_and_seed_a_lab(teacher: Driver) -> None:
    """Several layers deep, with RAM beside them, while the lab runs on."""
    said = teacher.well("start", "note=one", "take=a", "note=two", "take=b", "note=three", "keep", "disks", "states")
    assert [Path(file).name for file in said["keep"]] == ["lesson-a.klab", "lesson-b.klab"]
    assert said["disks"] == ["three"]
    assert said["states"] == ["running"]
    assert teacher.well("keep")["keep"] == said["keep"], "the same snapshots in the same files"
    assert teacher.well("destroy", "kept") == {"leftovers": [], "kept": said["keep"]}
    for file, text in zip(said["keep"], ("one", "two"), strict=True):
        back = Driver(teacher.offspring, teacher.home, "back", Path(file))
        # RAM is not in it: what the guests had noted there is gone, their disks are as they were.
        found = back.well(f"from={file}", "disks", "destroy")
        assert found["disks"] == [text]
        assert found["leftovers"] == []
