"""Snapshots of a real lab, of tiny machines: kill -9 at each of klab's own steps leaves the old state or the new."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from contract.offspring import Offspring

from lab.snapshots.journal import STEPS
from lab.store import Home

pytestmark = pytest.mark.incremental

LIMIT = 600


class Driver:
    """Runs snapshots_driver.py."""

    def __init__(self, offspring: Offspring, home: Home, box: Path) -> None:
        self._offspring = offspring
        self._words = [str(home.root), str(box)]

    def run(self, *steps: str, killed: bool = False) -> dict[str, Any]:
        """What the steps said, by step."""
        done = self._offspring.run([*self._words, *steps], LIMIT)
        assert done.returncode == (-signal.SIGKILL if killed else 0), done.stdout + done.stderr
        return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))

    def expect(self, text: str, *names: str, after: Sequence[str] = ()) -> dict[str, Any]:
        """Make sure that both guests hold a text and run, and that there are just these snapshots, whole.

        Args:
            text: what the guests hold.
            names: the snapshots, automatic ones apart.
            after: what is to be done before.

        Returns:
            What was said.
        """
        said = self.run(*after, "noted", "states", "names", "keys", "images", "files")
        assert said["noted"] == [text]
        assert said["states"] == ["running"]
        assert [n for n in said["names"] if not n.startswith("auto-")] == list(names)
        manifests, captures = said["keys"]
        assert manifests == captures
        # By capture and node an image, and whole ones that only deltas need still.
        needed, count = said["images"]
        assert [name for name in said["files"] if name.endswith(".ram")] == needed
        assert len(needed) >= count
        # By node layers make a tree of which each is needed, or lies below two.
        count = len(said["names"])
        assert sum(name.endswith(".img") for name in said["files"]) <= 2 * (2 * (count + 1) - 1), said["files"]
        return said


@pytest.fixture(scope="module")
def driver(real_home: Home, tiny_box: Path) -> Iterator[Driver]:
    with Offspring("contract.snapshots_driver") as offspring:
        driver = Driver(offspring, real_home, tiny_box)
        yield driver
        driver.run("destroy")
    shutil.rmtree(real_home.labs / "snapped")


def test_back_and_forth(driver: Driver) -> None:
    said = driver.run("small", "up", "note=first", "take=one", "note=second", "take=two", "note=now")
    assert "error" not in said, said
    assert driver.run("restore=one", "noted")["noted"] == ["first"]
    driver.expect("second", "one", "two", after=["restore"])


@pytest.mark.parametrize(
    "moment", [*STEPS["snapshot"], "snapshotCreateXML", "snapshotCreateXML+0.05", "digest+0.1", "delete"]
)
def test_a_kill_in_a_snapshot(driver: Driver, moment: str) -> None:
    driver.run("note=now", f"kill={moment}", "take=three", killed=True)
    said = driver.expect("now", "one", "two", after=["recover"])
    assert said["recover"] == "an unfinished snapshot was undone"


@pytest.mark.parametrize(
    "moment",
    [
        *("suspend", "save", "snapshotCreateXML+0.03"),
        *("revert", "destroy+0.05", "restoreFlags", "restoreFlags+0.05", "resume", "clocks", "verify", "keep"),
    ],
)
def test_a_kill_in_a_restore(driver: Driver, moment: str) -> None:
    driver.run("note=now", f"kill={moment}", "restore=one", killed=True)
    taken_back = moment.startswith(("suspend", "save", "snapshotCreateXML"))
    said = driver.expect("now" if taken_back else "first", "one", "two", after=["recover"])
    assert ("undone" if taken_back else "finished") in said["recover"]


def test_a_machine_that_does_not_come_back_leads_back(driver: Driver) -> None:
    said = driver.run("note=now", "fail=restoreFlags", "restore=one")
    kind, _, *details = said["error"]
    assert (kind, details) == ("MachineError", ["told to fail", "the lab is as it was before"])
    driver.expect("now", "one", "two")


@pytest.mark.parametrize("moment", ["back", "undone"])
def test_a_kill_on_the_way_back(driver: Driver, moment: str) -> None:
    driver.run("note=now", "fail=restoreFlags", f"kill={moment}", "restore=one", killed=True)
    said = driver.expect("now", "one", "two", after=["recover"])
    assert said["recover"] == "an unfinished restore was undone"


@pytest.mark.parametrize("moment", STEPS["remove"])
def test_a_kill_in_a_removal(driver: Driver, moment: str) -> None:
    driver.run("restore=two", "note=now", "take=three", f"kill={moment}", "rm=two", killed=True)
    said = driver.expect("now", "one", "three", after=["recover"])
    assert "finished" in said["recover"]
    said = driver.run("restore=three", "noted", "restore=one", "noted", "note=second", "take=two", "rm=three")
    assert "error" not in said, said


def test_the_next_act_goes_on_by_itself(driver: Driver) -> None:
    driver.run("note=now", "kill=save", "take=three", killed=True)
    driver.expect("first", "one", "two", "three", after=["take=three", "restore=one"])


def test_a_disk_without_room_is_left_alone(driver: Driver) -> None:
    said = driver.run("note=now", "fill=200", "take=four")
    kind, message, needed, *details = said["error"]
    assert (kind, message) == ("HostError", "there is no room for a snapshot of lab 'snapped'")
    assert re.fullmatch(r"[\d ]+ MiB may be needed, [\d ]+ MiB are free in /\S+: [\d ]+ MiB are missing", needed)
    assert [detail.split()[0] for detail in details] == ["cp1", "w1"]
    assert driver.run("restore=one")["error"][0] == "HostError"
    driver.expect("now", "one", "two", "three", after=["empty"])


def test_a_disk_that_fills_up_while_it_is_written_to(driver: Driver) -> None:
    """The guests write on meanwhile, and are not stopped by it."""
    said = driver.run("note=now", "write", "full=save", "take=four", "written")
    kind, _, *details = said["error"]
    assert kind == "MachineError"
    assert any("No space left on device" in line for line in details), details
    told = re.compile(r"the RAM of cp1, w1 may take [\d ]+ MiB, [\d ]+ MiB are free")
    assert any(told.search(line) for line in details), details
    assert details[-1] == "nothing of the snapshot is left, and the lab is as it was before"
    assert said["written"] is True
    driver.expect("now", "one", "two", "three", after=["empty"])
    assert driver.run("restore=two", "noted")["noted"] == ["second"]


@pytest.mark.parametrize("step", ["suspend", "digest", "manifest"])
def test_a_disk_without_a_byte_left_in_the_middle_of_a_snapshot(driver: Driver, step: str) -> None:
    said = driver.run("note=now", f"full={step}+0", "take=four")
    kind, message, *details = said["error"]
    assert (kind, message) == ("HostError", "this machine refuses: No space left on device")
    assert details[-1] == "nothing of the snapshot is left, and the lab is as it was before"
    driver.expect("now", "one", "two", "three", after=["empty"])


def test_a_disk_without_room_for_what_saves_room(driver: Driver) -> None:
    """A RAM image stays whole where the disk fills up while its delta is written."""
    before = deltas(driver.run("files")["files"])
    said = driver.run("note=now", "stir", f"full=digest+{1 << 20}", "take=four", "files")
    assert "error" not in said, said
    assert deltas(said["files"]) == before
    said = driver.expect("now", "one", "two", "three", "four", after=["empty", "note=later", "restore=four"])
    # What was kept before that restore builds on it, being whole.
    driver.run(f"rm={','.join(name for name in said['names'] if name == 'four' or name.startswith('auto-'))}")


def deltas(files: Sequence[str]) -> list[str]:
    return [name for name in files if name.endswith(".delta.ram")]


def test_a_disk_without_room_to_go_back(driver: Driver) -> None:
    """There is none for a new layer: the machines are resumed as they are."""
    said = driver.run("note=now", "full=revert+0", "restore=two")
    kind, _, *details = said["error"]
    assert kind == "MachineError"
    assert any("No space left on device" in line for line in details), said["error"]
    assert details[-1] == "the lab is as it was before"
    driver.expect("now", "one", "two", "three", after=["empty"])


def test_to_go_back_to_a_delta_takes_no_room(driver: Driver) -> None:
    assert deltas(driver.run("files")["files"])
    said = driver.run("note=now", f"full=revert+{30 << 20}", "restore=two", "noted")
    assert "error" not in said, said
    assert said["noted"] == ["second"]
    driver.expect("second", "one", "two", "three", after=["empty", "recover"])


@pytest.mark.parametrize("moment", ["restoreFlags+0.05", "restoreFlags+0.3"])
def test_a_kill_while_machines_read_their_ram_from_a_pipe(driver: Driver, moment: str) -> None:
    assert deltas(driver.run("files")["files"])
    driver.run("note=now", f"kill={moment}", "restore=two", killed=True)
    said = driver.expect("second", "one", "two", "three", after=["recover"])
    assert "finished" in said["recover"]


def test_a_disk_that_is_full_when_the_lab_is_back(driver: Driver) -> None:
    said = driver.run("note=now", "full=verify+0", "restore=one", "noted")
    assert "error" not in said, said
    assert said["noted"] == ["first"]
    driver.expect("first", "one", "two", "three", after=["empty", "recover"])


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("half", r"\d{8}-\d{6}-\w+\.json: it is damaged: .+"),
        ("lab", r"it is of another lab: snapped \(another\)"),
        ("QEMU", r"the RAM of w1 was saved with QEMU 99\.2\.3, here it is \d+\.\d+\.\d+, which is older"),
        ("CPU", r"the RAM of w1 was saved with CPU model i486, which QEMU does not offer here"),
        ("changed memory", r".+\.ram has changed: its digest is \w+, it was \w+"),
        ("changed disk", r".+\.img has changed: its digest is \w+, it was \w+"),
        ("missing memory", r".*[^/ ]+\.ram.*"),
        ("missing disk", r".*[^/ ]+\.img.*"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_lab_left_as_it_is(driver: Driver, way: str, reason: str) -> None:
    said = driver.run("note=now", f"spoil={way}:one", "restore=one", "noted", "states", "mend", "names")
    kind, message, *details = said["error"]
    assert any(re.fullmatch(reason, line) for line in details), said["error"]
    if way == "half":
        assert (kind, message) == ("NotFound", "lab 'snapped' has no snapshot called 'one'")
    else:
        assert (kind, message) == ("Conflict", "snapshot 'one' cannot be restored")
        assert details[-1] == "the lab has not been touched"
    assert (said["noted"], said["states"]) == (["now"], ["running"])
    # Nothing was kept of the lab for a restore that was none. What is mended fits again: the next test goes there.
    assert driver.expect("now", "one", "two", "three")["names"] == said["names"]


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_a_byte_that_changed_under_the_same_size_and_times_is_found(driver: Driver, what: str) -> None:
    whole, damage = driver.run("note=now", "verify")["verify"]
    assert damage == []
    assert {"one", "two", "three"} <= {*whole}
    left, damage = driver.run(f"spoil=changed {what}:one", "verify", "mend")["verify"]
    ((file, snapshots),) = damage
    assert re.fullmatch(r"klab-snapped_w1\..+", file)
    assert "one" in snapshots
    assert {*left} == {*whole} - {*snapshots}
    assert driver.run("verify")["verify"] == [whole, []]
    driver.expect("now", "one", "two", "three")


def test_stopped_and_started_again(driver: Driver) -> None:
    said = driver.run("stop", "take=off", "restore=one", "noted", "restore=off", "states")
    assert said["noted"] == ["first"]
    assert said["states"] == ["stopped"]
    assert "error" not in said, said
    driver.expect("first", "one", "two", after=["restore=one", "rm=off,three"])


def test_destroy_leaves_nothing(driver: Driver) -> None:
    assert driver.run("destroy", "leftovers")["leftovers"] == []
