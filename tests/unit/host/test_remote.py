"""Another machine over ssh, with a program in ssh's place that runs here what it is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from lab.errors import HostError, ProgramError, ProgramTimeout
from lab.host.remote import SshHost

SECONDS = 60.0
# As ssh: the options and the target are before --, and the rest is for the shell there.
SSH = """#!/bin/sh
printf '%s\\n' "$@" > "$(dirname "$0")/words"
while [ "$1" != -- ]; do shift; done
exec sh -c "$2"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of programs that go before others of their names."""
    folder = tmp_path / "programs"
    folder.mkdir()
    _put(folder, "ssh", SSH)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def _put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def test_words_reach_a_program_unchanged(programs: Path) -> None:
    words = ["a b", "$HOME", "'", '"', "*", "", "-n", "\\", "ä\nb"]
    assert SshHost("there").run(["printf", "%s|", *words], timeout=SECONDS).stdout == "|".join([*words, ""])
    assert SshHost("there").run(["cat"], timeout=SECONDS).stdout == "", "standard input is empty"


def test_a_program_that_takes_too_long_is_told_as_that(programs: Path) -> None:
    with pytest.raises(ProgramTimeout, match=r"sleep did not end within 0\.2 s on there"):
        SshHost("there").run(["sleep", "60"], timeout=0.2)


@pytest.mark.parametrize("code", [124, 137])
def test_the_exit_code_of_a_program_of_its_own_is_no_time_out(programs: Path, code: int) -> None:
    host = SshHost("there")
    assert host.run(["sh", "-c", f"exit {code}"], timeout=SECONDS, check=False).code == code
    with pytest.raises(ProgramError, match=f"exit code {code}"):
        host.run(["sh", "-c", f"exit {code}"], timeout=SECONDS)


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_at_all_is_not_all_time(programs: Path, seconds: float) -> None:
    """timeout(1) takes 0 for no limit; a deadline that has passed leaves 0 seconds."""
    with pytest.raises(ProgramTimeout):
        SshHost("there").run(["sleep", "60"], timeout=seconds)


@pytest.mark.parametrize(
    ("name", "text", "ask"),
    [
        ("nproc", "echo welcome; echo 4", lambda host: host.cpus()),
        ("stat", "echo welcome", lambda host: host.disk_free(PurePosixPath("/"))),
        ("printf", "echo no path", lambda host: host.home),
    ],
)
def test_what_is_no_answer_is_an_error_of_that_host(
    programs: Path, name: str, text: str, ask: Callable[[SshHost], object]
) -> None:
    # printf is part of every shell; a shell in the shell's place prints in its stead.
    _put(programs, "sh" if name == "printf" else name, f"#!/bin/bash\n{text}\n")
    with pytest.raises(HostError, match="there answers with something that klab did not ask for"):
        ask(SshHost("there"))


def test_one_connection_is_shared_where_its_socket_has_a_path(programs: Path) -> None:
    def words(sockets: Path | None) -> list[str]:
        SshHost("there", sockets=sockets).run(["true"], timeout=SECONDS)
        return (programs / "words").read_text().splitlines()

    assert 'ControlPath="/run/my klab/100%%/%C"' in words(Path("/run/my klab/100%"))
    assert not any("Control" in word for word in words(Path("/" + "x" * 49)))
    assert any("Control" in word for word in words(Path("/" + "x" * 48)))
    assert not any("Control" in word for word in words(None))


@pytest.mark.parametrize("target", ["-oProxyCommand=true", ""])
def test_an_option_is_no_host(target: str) -> None:
    with pytest.raises(HostError, match="is not the name of a host"):
        SshHost(target)
