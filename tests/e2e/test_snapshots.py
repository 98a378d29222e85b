"""Snapshots of a real cluster at work: saved and restored, nothing lost, nothing done twice.

Fifty rounds of the same, and what is rarer (tests/soak), are `make soak`. Each restore takes its minute
where nodes are emulated, so there are just two of them here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.soak import SPACE, Soak

if TYPE_CHECKING:
    from support.real_lab import Lab


@pytest.fixture(scope="module")
def soak(lab: Lab) -> Iterator[Soak]:
    made = Soak(lab)
    made.start()
    yield made
    made.end()


def test_nothing_is_lost_and_nothing_done_twice(soak: Soak) -> None:
    soak.round(1)


def test_the_list_is_a_tree_with_the_place_where_the_lab_stands(lab: Lab, soak: Soak) -> None:
    text = lab.klab("snapshots", lab.name).stdout
    found = lab.result("snapshots", lab.name)
    assert found["stands_on"] in {each.name for each in soak.kept}
    assert f"{lab.name} is based on {found['stands_on']}; " in text
    names = {each["name"]: each for each in found["snapshots"]}
    for each in soak.kept:
        assert names[each.name]["size"] > 100 << 20, "a node's RAM is not so small"
    assert any(each["auto"] for each in found["snapshots"])
    assert found["damaged"] == []


def test_what_differs_is_told_without_a_secrets_value(lab: Lab, soak: Soak) -> None:
    newest = soak.kept[-1].name
    lab.kubectl("create", "secret", "generic", "hidden", "-n", SPACE, "--from-literal=word=xyzzy")
    told = lab.klab("diff", lab.name, newest).stdout
    assert f"+ {SPACE}: Secret hidden" in told
    # It counts all the time.
    assert f"~ {SPACE}: ConfigMap counter" in told
    assert "xyzzy" not in told
    assert "eHl6enk" not in told


def test_a_changed_byte_is_refused_and_the_lab_left_as_it_is(lab: Lab, soak: Soak) -> None:
    newest = soak.kept[-1].name
    for node in lab.nodes:
        lab.on(node, "touch /root/untouched; sync")
    file = memory_file(lab, newest, "w1")
    flip(file)
    try:
        done = lab.klab("restore", lab.name, newest, check=False)
    finally:
        flip(file)
    assert done.returncode == 4
    assert f"{file.name} has changed" in done.stderr
    assert "the lab has not been touched" in done.stderr
    assert "Traceback" not in done.stderr
    for node in lab.nodes:
        lab.on(node, "ls /root/untouched")
    assert lab.result("status", lab.name)["ready"] is True


def memory_file(lab: Lab, snapshot: str, node: str) -> Path:
    """The file that holds a node's RAM."""
    (found,) = (each for each in lab.result("snapshots", lab.name)["snapshots"] if each["name"] == snapshot)
    manifest = json.loads((lab.folder / "snapshots" / f"{found['id']}.json").read_text())
    (parts,) = (each["parts"] for each in manifest["nodes"] if each["name"] == node)
    (name,) = (part["name"] for part in parts if part["kind"] == "memory")
    (file,) = (lab.home / "realm").rglob(Path(name).name)
    return file


def flip(file: Path) -> None:
    """Change the lowest bit of a byte in the middle; done twice, nothing has changed."""
    with file.open("r+b") as out:
        at = file.stat().st_size // 2
        out.seek(at)
        byte = out.read(1)
        out.seek(at)
        out.write(bytes([byte[0] ^ 1]))


KILLED = """
import os, signal, sys
from lab.cli import app
from lab.snapshots.journal import AttemptJournal
write = AttemptJournal._write
def killed(journal, attempt):
    write(journal, attempt)
    if attempt.step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt
AttemptJournal._write = killed
app.run(WORDS)
"""


def killed_at(lab: Lab, step: str, *words: str) -> None:
    """klab, killed as soon as it has written down that it begins a step."""
    code = KILLED.replace("STEP", repr(step)).replace("WORDS", repr(list(words)))
    done = subprocess.run([sys.executable, "-c", code], env=lab.env, capture_output=True, text=True, timeout=3600)
    assert done.returncode == -9, done.stderr


def test_a_killed_snapshot_is_taken_back_and_a_killed_restore_finished_by_the_next_command(
    lab: Lab, soak: Soak
) -> None:
    killed_at(lab, "save", "snapshot", lab.name, "cut-off")
    done = lab.klab("snapshots", lab.name)
    assert "an unfinished snapshot was undone" in done.stderr
    assert "cut-off" not in done.stdout
    for node in lab.nodes:
        lab.on(node, "ls /root/untouched")
    killed_at(lab, "revert", "restore", lab.name, soak.kept[-1].name)
    told = lab.klab("status", lab.name, check=False)
    assert "an unfinished restore was finished" in told.stderr
    # klab start waits until the cluster is Ready; everything runs already.
    lab.klab("start", lab.name)
    soak.check_back(soak.kept[-1])
    for node in lab.nodes:
        assert lab.on(node, "ls /root/untouched 2> /dev/null || true") == "", node
