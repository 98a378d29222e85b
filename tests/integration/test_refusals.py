"""`klab create` where it cannot work: one message, an exit code, and nothing left running or lying about."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.host import look_at_host

from lab.app.boxes import DEFAULT_BOX
from lab.boxes.store import find_box
from lab.components.kubernetes import DEFAULT
from lab.store import Home

BIG = "version: 1\nname: big\nmemory: 9000Gi\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of the test's own, with the person's boxes."""
    boxes = Home.default().boxes
    boxes.mkdir(parents=True, exist_ok=True)
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "boxes").symlink_to(boxes)
    return folder


def klab(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "KLAB_HOME": str(home), "NO_COLOR": "1", **variables}
    argv = [sys.executable, "-m", "lab.cli.main", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_what_does_not_fit_is_refused_with_numbers(home: Path, tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text(BIG)
    before = look_at_host(home)
    done = klab(home, "create", str(tmp_path / "big.yaml"))
    assert done.returncode == 5, done.stderr
    assert "does not fit" in done.stderr
    assert "900" in done.stderr
    assert "Traceback" not in done.stderr
    assert look_at_host(home) == before
    assert not (home / "labs" / "big").exists()


def test_without_a_box_the_command_that_builds_one_is_named(tmp_path: Path) -> None:
    home = tmp_path / "empty"
    before = look_at_host(home)
    done = klab(home, "create", "1m2w")
    assert done.returncode == 7
    assert "klab box build" in done.stderr
    assert look_at_host(home) == before


def test_a_damaged_box_is_refused_before_any_machine(home: Path, tmp_path: Path) -> None:
    found = find_box(Home.default(), DEFAULT_BOX, DEFAULT).folder
    (home / "boxes").unlink()
    copy = home / "boxes" / found.name
    copy.mkdir(parents=True)
    for file in found.iterdir():
        # Links, but for the disk: a shorter one stands for one that was cut off while being copied.
        if file.name == "disk.qcow2":
            (copy / file.name).write_bytes(b"short")
        elif file.name == "manifest.json":
            shutil.copy2(file, copy)
        else:
            (copy / file.name).symlink_to(file)
    before = look_at_host(home)
    done = klab(home, "create", "1m2w")
    assert done.returncode == 7, done.stderr
    assert "disk.qcow2" in done.stderr
    assert look_at_host(home) == before


def test_an_unknown_libvirt_is_refused(home: Path) -> None:
    done = klab(home, "create", "1m2w", KLAB_LIBVIRT="mine")
    assert done.returncode == 5
    assert "KLAB_LIBVIRT" in done.stderr
    assert "Traceback" not in done.stderr
