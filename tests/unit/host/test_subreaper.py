"""What stays behind a daemon: it tells how the start went, and reaps whatever the daemon lets go of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.host import namespaces, subreaper
from lab.waiting import Deadline, poll

# Goes into the background, as a daemon does, and there starts something of which it lets go, as libvirtd does.
DAEMON = "(sleep 600 & echo $! > {folder}/orphan; read _ < {folder}/go) & exit 0"


def start(*words: str) -> int:
    command = [sys.executable, "-I", subreaper.__file__, *words]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60).returncode


def parent(pid: int) -> int:
    return int((namespaces.PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("code", [0, 1, 7])
def test_the_exit_code_is_the_programs(code: int) -> None:
    assert start("/bin/sh", "-c", f"exit {code}") == code


def test_a_program_that_cannot_be_run(tmp_path: Path) -> None:
    assert start(str(tmp_path / "none")) == subreaper.CANNOT_RUN


def test_orphans_are_its_own_and_reaped_and_it_ends_with_the_last(tmp_path: Path) -> None:
    subprocess.run(["/usr/bin/mkfifo", str(tmp_path / "go")], check=True)
    assert start("/bin/sh", "-c", DAEMON.format(folder=tmp_path)) == 0
    file = tmp_path / "orphan"
    assert poll(lambda: file.exists() and file.read_text().endswith("\n"), Deadline.after(30), every=0.01)
    orphan = int(file.read_text())
    (tmp_path / "go").write_text("\n")  # lets go of it
    assert poll(lambda: namespaces.command(parent(orphan)) == subreaper.NAME, Deadline.after(30), every=0.01)
    keeper = parent(orphan)
    subprocess.run(["/bin/kill", "-9", str(orphan)], check=True)
    assert poll(lambda: not (namespaces.PROC / str(orphan)).exists(), Deadline.after(30), every=0.01)
    assert poll(lambda: namespaces.started(keeper) is None, Deadline.after(30), every=0.01)


def test_apparmor_is_left_where_there_is_one(tmp_path: Path) -> None:
    """What aa-exec(1) of apparmor 3.1 writes for `-p unconfined`; that it takes effect, only such a kernel can show."""
    subreaper._leave_apparmor(str(tmp_path / "no" / "exec"))
    subreaper._leave_apparmor(str(tmp_path / "exec"))
    assert (tmp_path / "exec").read_text() == "exec unconfined"
