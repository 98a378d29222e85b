"""klab's own log: what is in it, what never is, and that it disturbs no command."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk

from lab import log, process
from lab.cli import app
from lab.errors import ProgramTimeout
from lab.store import Home, LabFolder
from lab.waiting import map_parallel, thread

LOG = logging.getLogger("klab.test")
KEY = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA\n-----END EC PRIVATE KEY-----"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[LabFolder]:
    """A lab's folder with a place for logs."""
    lab = LabFolder(tmp_path / "labs" / "demo")
    lab.logs.mkdir(parents=True)
    log.begin([])
    yield lab
    log.begin([])


@pytest.mark.parametrize(
    "secret",
    [
        ["kubeadm", "join", "--token", "abcdef.0123456789abcdef"],
        ["kubeadm", "join", "--token=abcdef.0123456789abcdef"],
        ["sh", "-c", "kubeadm init --certificate-key 5f1e0c --upload-certs"],
        ["sh", "-c", "kubeadm init --certificate-key '5f1e0c' --upload-certs"],
        ["sh", "-c", f"echo '{KEY}' > key"],
        ["sh", "-c", KEY[:-10]],
        ["curl", "-H", "Authorization: Bearer xyzzy"],
        ["curl", "-d", json.dumps({"password": "5f1e0c"})],
        ["curl", "-d", json.dumps({"said": json.dumps({"password": "5f1e0c"})})],
        ["sh", "-c", "PASSWORD=5f1e0c program"],
        ["echo", "abcdef.0123456789abcdef"],
        ["echo", "client-key-data: 5f1e0c"],
        ["echo", "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJl.5f1e0c"],
        ["mmdebstrap", "trixie", "disk", "https://user:5f1e0c@mirror.example/debian"],
        ["env", "http_proxy=http://user:5f1e0c@proxy:3128", "program"],
        ["skopeo", "copy", "--src-creds", "user:5f1e0c"],
        ["skopeo", "copy", "--src-creds=user:5f1e0c"],
        ["program", "--password", "two 5f1e0c"],
        ["kubectl", "create", "secret", "generic", "x", "--from-literal=password=two 5f1e0c"],
        ["sh", "-c", "AWS_SECRET_ACCESS_KEY=5f1e0c API_KEY='5f1e0c' program"],
    ],
)
def test_no_secret_is_logged(secret: list[str]) -> None:
    line = log.command_line(secret)
    assert log.REMOVED in line
    for part in ("0123456789abcdef", "5f1e0c", "MHcCAQ", "xyzzy"):
        assert part not in line
    assert line.startswith(secret[0])


@pytest.mark.parametrize(
    "words",
    [
        ["ssh", "-o", "PasswordAuthentication=no", "-i", "labs/demo/ssh/id_ed25519", "klab@192.168.56.11", "true"],
        ["kubeadm", "join", "--discovery-token-ca-cert-hash", "sha256:0123"],
        ["qemu-img", "convert", "-O", "qcow2", "disk.raw", "disk.qcow2"],
        ["curl", "http://192.168.56.11:6443/readyz", "klab@192.168.56.11"],
    ],
)
def test_what_is_no_secret_is_logged_as_it_is(words: list[str]) -> None:
    assert log.command_line(words) == " ".join(words)


def test_a_line_stays_a_line_and_is_bounded() -> None:
    assert "\n" not in log.command_line(["printf", "a\nb\x1b[2J"])
    assert len(log.command_line(["echo", "x" * 100_000])) < 2 * log.MOST_IN_LINE


def test_a_program_leaves_one_line_with_its_time_and_exit_code(folder: LabFolder) -> None:
    log.about(folder.log)
    process.run([sys.executable, "-c", "raise SystemExit(3)"], timeout=60, check=False, stdin="not logged")
    lines = folder.log.read_text().splitlines()
    assert lines[-1].endswith(" s, exit code 3")
    assert "klab.process: " in lines[-1]
    assert sum("SystemExit" in line for line in lines) == 1
    assert "not logged" not in folder.log.read_text()
    assert folder.log.stat().st_mode & 0o777 == 0o600


def test_a_program_that_was_stopped_is_logged(folder: LabFolder) -> None:
    log.about(folder.log)
    with pytest.raises(ProgramTimeout):
        process.run([sys.executable, "-c", "import time; time.sleep(600)"], timeout=0.1)
    assert folder.log.read_text().splitlines()[-1].endswith("ended by signal 15")


def test_a_program_on_the_terminal_and_a_daemon_are_logged(
    folder: LabFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(process, "_SPAWNED", held)
    log.about(folder.log)
    assert process.attach([sys.executable, "-c", "raise SystemExit(4)"]) == 4
    number = process.spawn([sys.executable, "-c", "pass"], log=tmp_path / "out")
    held[0].wait()
    text = folder.log.read_text()
    assert "exit code 4" in text
    assert f"runs on as process {number}" in text


def test_what_comes_before_the_lab_is_known_is_not_lost(folder: LabFolder) -> None:
    log.begin(["status", "demo"])
    LOG.info("looked at the host")
    assert not folder.log.exists()
    log.about(folder.log)
    assert [line.rsplit("Z", 1)[1].split(" ", 2)[2] for line in folder.log.read_text().splitlines()] == [
        "INFO klab: klab status demo",
        "INFO klab.test: looked at the host",
    ]


def test_another_command_begins_with_nothing_of_the_one_before(folder: LabFolder) -> None:
    LOG.info("of the one before")
    log.begin(["list"])
    log.about(folder.log)
    assert "of the one before" not in folder.log.read_text()


def test_threads_log_into_the_lab_of_the_one_that_made_them(folder: LabFolder, tmp_path: Path) -> None:
    other = LabFolder(tmp_path / "labs" / "other")
    other.logs.mkdir(parents=True)

    def work(lab: LabFolder) -> None:
        log.about(lab.log)
        meeting.wait(60)
        map_parallel(lambda number: LOG.info("%s %d", lab.name, number), [1, 2])
        one = thread(lambda: LOG.info("%s 3", lab.name), "one")
        one.start()
        one.join()

    meeting = threading.Barrier(2)
    threads = [threading.Thread(target=work, args=(lab,)) for lab in (folder, other)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert folder.log.read_text().count("klab.test: demo") == 3
    assert other.log.read_text().count("klab.test: other") == 3
    assert "other" not in folder.log.read_text()


def test_the_log_is_bounded(folder: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_BYTES", 2000)
    log.about(folder.log)
    for number in range(200):
        LOG.info("line %d", number)
    files = sorted(folder.logs.iterdir())
    assert [file.name for file in files] == ["klab.log", "klab.log.1"]
    assert all(file.stat().st_size < 2200 for file in files)
    assert folder.log.read_text().endswith("line 199\n")


def test_a_log_that_cannot_be_written_disturbs_nobody(folder: LabFolder, capfd: pytest.CaptureFixture[str]) -> None:
    folder.log.mkdir()
    log.about(folder.log)
    LOG.info("said to nobody")
    for _ in range(2 * log.MOST_WAITING):
        LOG.info("kept in bounds")
    assert capfd.readouterr() == ("", "")
    folder.log.rmdir()
    LOG.info("now there is room")
    assert len(folder.log.read_text().splitlines()) == log.MOST_WAITING


@pytest.mark.parametrize("part", ["-", "-a", "eyJ", "token ", "a://", "--token=", "abc123."])
def test_a_long_word_is_redacted_at_once(part: str) -> None:
    """Linux lets a word have 128 KiB; a pattern that began again at each place of it would take minutes."""
    log.command_line(["echo", part * (131_000 // len(part))])


def test_a_pipe_in_the_logs_place_is_not_waited_for(folder: LabFolder) -> None:
    os.mkfifo(folder.log)
    log.about(folder.log)
    LOG.info("said to nobody")


def test_no_link_is_followed(folder: LabFolder, tmp_path: Path) -> None:
    target = tmp_path / "of-another"
    target.write_text("mine")
    folder.log.symlink_to(target)
    log.about(folder.log)
    LOG.info("hello")
    assert target.read_text() == "mine"


def test_a_lab_that_was_destroyed_gets_no_folder_again(folder: LabFolder) -> None:
    log.about(folder.log)
    folder.remove()
    LOG.info("after the end")
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("words", "shown", "begins"),
    [
        (["doing"], False, False),
        (["doing", "-v"], True, False),
        (["-v", "doing"], True, False),
        (["--verbose", "doing"], True, False),
        (["doing", "--debug"], True, True),
        (["--debug", "-v", "doing"], True, True),
    ],
)
def test_the_terminal_shows_programs_when_asked(
    words: list[str],
    shown: bool,
    begins: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import click

    @click.command()
    def command() -> None:
        process.run([sys.executable, "-c", "pass"], timeout=60)

    monkeypatch.setattr("lab.cli.commands.list.command", command)
    assert app.run([word.replace("doing", "list") for word in words]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert (": begins" in said.err) == begins
    assert ("exit code 0" in said.err) == shown
    # It is over with the command.
    LOG.info("after the command")
    assert "after the command" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["kubectl", "ssh", "vagrant"])
def test_minus_v_after_another_programs_name_is_its_own(name: str) -> None:
    import click

    command = app.cli.get_command(click.Context(app.cli), name)
    assert command is not None
    assert not any("-v" in param.opts for param in command.params)


@pytest.mark.parametrize(
    ("words", "code"),
    [(["stop", "plain"], 0), (["start", "plain"], 0), (["status", "plain"], 0), (["doctor", "plain"], 9)],
)
def test_a_command_about_a_lab_is_in_its_log(words: list[str], code: int, home: Path) -> None:
    folder, _plan = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="plain")
    other, _plan = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="other")
    for each in (folder, other):
        each.logs.mkdir(exist_ok=True)
    assert app.run(["list"]) == 0
    assert app.run(words) == code
    assert [line.rpartition("klab: ")[2] for line in folder.log.read_text().splitlines() if "INFO klab: " in line] == [
        f"klab {' '.join(words)}"
    ]
    assert not other.log.exists()


def test_what_cannot_be_written_of_one_lab_is_in_no_other_labs_log(folder: LabFolder, tmp_path: Path) -> None:
    """As the last lines of a lab that was destroyed, while another one is worked on in another thread."""
    log.about(tmp_path / "labs" / "gone" / "klab.log")
    LOG.info("of the lab that is gone")
    log.about(folder.log)
    LOG.info("of this one")
    assert "of the lab that is gone" not in folder.log.read_text()
    assert "of this one" in folder.log.read_text()


def test_a_log_begins_once_its_folder_is_there(tmp_path: Path, folder: LabFolder) -> None:
    late = tmp_path / "labs" / "late" / "klab.log"
    log.about(late)
    LOG.info("before")
    late.parent.mkdir()
    LOG.info("after")
    assert [line.rsplit(" ", 1)[1] for line in late.read_text().splitlines()][-2:] == ["before", "after"]
