"""Programs on a node or against a lab, and what a node has printed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk
from support.shelved import shelved_box

from lab.app import consoles, programs
from lab.app.labs import Labs
from lab.cluster.lab import Lab
from lab.cluster.wait.console_file import rotated
from lab.errors import HostError, MachineError, NotFound
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.store import Home


@pytest.fixture
def lab(home: Path) -> Lab:
    lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none")
    return Labs().open("demo")


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (["uptime"], ["uptime"]),
        (["ls -l; id"], ["bash", "-c", "ls -l; id"]),
        (["ls", "a file"], ["ls", "a file"]),
    ],
)
def test_one_word_with_blanks_is_a_shells(lab: Lab, words: list[str], ending: list[str]) -> None:
    assert programs.ssh(lab, "cp1", words) == programs.Program(lab.machines().ssh_argv("cp1", ending))


def test_a_shell_needs_a_machine_that_runs(lab: Lab) -> None:
    assert programs.ssh_if_running(lab, "w1") == programs.ssh(lab, "w1")
    FakeMachines(lab.home, lab.folder, lab.plan, lab.record, None).set_state("w1", NodeState.STOPPED)
    with pytest.raises(MachineError, match="w1 is not running: its machine is stopped") as caught:
        programs.ssh_if_running(lab, "w1")
    assert caught.value.hint == "klab start demo w1"


def test_kubectl_is_of_the_labs_box_and_knows_the_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    box = shelved_box(lab.home)
    lab.folder.update_record(box=box.folder.name)
    found = programs.kubectl(lab, ["get", "nodes"])
    assert found.argv == [str(box.kubectl), "get", "nodes"]
    assert found.env == {"KUBECONFIG": str(lab.folder.kubeconfig)}
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert "192.168.56.0/24" in programs.kubectl(lab, ["get", "nodes"]).env["NO_PROXY"]
    asked: list[str] = []
    monkeypatch.setattr(programs, "have", lambda program: asked.append(program) or True)
    assert programs.has_kubectl(lab)
    assert asked == [str(box.kubectl)]


def test_vagrant_runs_in_the_labs_folder(lab: Lab) -> None:
    found = programs.vagrant(lab, ["status"])
    assert found.argv == ["vagrant", "status"]
    assert found.env["VAGRANT_CWD"] == str(lab.folder.path)


@pytest.mark.parametrize(("text", "lines", "seen"), [("a\nb\nc\n", 2, b"b\nc\n"), ("a\nb", 1, b"b"), ("", 3, b"")])
def test_the_end_of_a_console(lab: Lab, text: str, lines: int, seen: bytes) -> None:
    lab.machines().consoles()["cp1"].write_text(text)
    assert b"".join(consoles.console(lab, "cp1", lines, note=print)) == seen


def test_a_console_that_is_not_there(lab: Lab) -> None:
    lab.machines().consoles()["cp1"].unlink()
    with pytest.raises(NotFound, match="cp1 has printed nothing yet"):
        list(consoles.console(lab, "cp1", 10, note=print))


BOOTS = (
    b"[    0.4] Booting\n[   31.2] klab: cloud-init begin\n[  800.9] reboot: Restarting system\n"
    b"\x1b[0m[    0.5] Booting again\n[    3.9] one\n[    3.1] two\nlogin: "
)


def test_a_console_is_shown_from_its_last_boot_on(lab: Lab) -> None:
    lab.machines().consoles()["cp1"].write_bytes(BOOTS)
    told: list[str] = []
    shown = b"".join(consoles.console(lab, "cp1", 200, note=told.append))
    assert shown == b"\x1b[0m[    0.5] Booting again\n[    3.9] one\n[    3.1] two\nlogin: "
    assert len(told) == 1
    assert "--boots" in told[0]
    assert b"".join(consoles.console(lab, "cp1", 200, boots=True, note=told.append)) == BOOTS
    assert b"".join(consoles.console(lab, "cp1", 2, note=told.append)) == b"[    3.1] two\nlogin: "
    assert len(told) == 1


def test_a_console_goes_on_where_virtlogd_has_cut_it(lab: Lab) -> None:
    file = lab.machines().consoles()["cp1"]
    rotated(file).write_bytes(b"1\n2\n3\n")
    file.write_bytes(b"4\n5\n")
    assert b"".join(consoles.console(lab, "cp1", 3, note=print)) == b"3\n4\n5\n"
    assert b"".join(consoles.console(lab, "cp1", 2, note=print)) == b"4\n5\n"
    assert b"".join(consoles.console(lab, "cp1", 9, note=print)) == b"1\n2\n3\n4\n5\n"


def test_a_console_of_roots_is_named_with_what_shows_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lab.machines().consoles()["cp1"]
    file.write_text("much\n")
    rotated(file).touch()

    def closed(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(HostError, match="the console of cp1 cannot be read") as caught:
        list(consoles.console(lab, "cp1", 10, note=print))
    assert caught.value.details[0] == f"Permission denied: {file}"
    assert str(rotated(file)) in caught.value.details[1]
    assert f"sudo tail -n 200 {file}" in caught.value.hint
    assert [str(remedy) for remedy in caught.value.hint.remedies] == ["klab stop cp1", "klab start cp1"]
