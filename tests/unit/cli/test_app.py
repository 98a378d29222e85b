"""The command line as a person meets it: help, mistakes, failures, Ctrl-C, a closed pipe."""

from __future__ import annotations

import errno
import os
import pty
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from lab import resources
from lab.cli import app
from lab.cli.overview import ALIASES, COMMANDS, HELP
from lab.errors import HostError, Interrupted

KLAB = [sys.executable, "-m", "lab.cli.main"]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Make `klab list` end in an exception of the test's choosing."""

    def install(error: BaseException) -> None:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr("lab.cli.commands.list.command", command)

    return install


def test_help_lists_every_command_there_is() -> None:
    package = Path(app.__file__).parent / "commands"
    modules = {file.stem for file in package.glob("*.py") if file.stem != "__init__"}
    assert modules == {app.module_of(name) for name in COMMANDS}
    for name in COMMANDS:
        assert f"\n  {name} " in HELP


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([name, "--help"]) == 0
    text = capsys.readouterr().out
    commands = app.cli.get_command(click.Context(app.cli), name)
    if isinstance(commands, click.Group):
        for each in commands.commands:
            assert app.run([name, each, "--help"]) == 0
            assert "Examples:" in capsys.readouterr().out
    else:
        assert "Examples:" in text


@pytest.mark.parametrize("name", ALIASES)
def test_an_old_name_is_the_new_command_and_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    new = ALIASES[name]
    assert name not in COMMANDS
    assert app.run([new, "--help"]) == 0
    told = capsys.readouterr()
    assert app.run([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert (out, told.err) == (told.out, "")
    assert err == f"klab {name} is called klab {new} now\n"
    assert f"klab {name}" not in HELP


def test_help_is_the_same_by_every_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--debug", "--help"]) == 0
    assert capsys.readouterr().out == HELP + "\n"
    assert subprocess.run([*KLAB, "-h"], capture_output=True, text=True, check=True).stdout == HELP + "\n"


HEAVY = {"cryptography", "jinja2", "libvirt", "rich", "urllib3", "vagrant"}


def loaded_by(code: str) -> set[str]:
    """The modules that a Python has imported after this code."""
    code = f"import sys; {code}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(out.splitlines()[-1].split())


def test_help_imports_nothing_heavy() -> None:
    """`klab --help` shall take at most five times as long as `python -c pass`."""
    loaded = loaded_by("sys.argv = ['klab', '--help']; from lab.cli.main import main; main()")
    assert "lab.cli.overview" in loaded
    assert not (HEAVY | {"asyncio", "click", "concurrent.futures", "tenacity", "yaml"}) & loaded


def test_plan_imports_nothing_heavy() -> None:
    """`klab plan` shall take at most 0.3 seconds on a usual machine. It asks a provider where disks will lie."""
    loaded = loaded_by("from lab.cli.app import run; run(['plan', '1m2w'])")
    assert {"click", "logging", "yaml"} <= loaded
    assert not (HEAVY | {"asyncio", "http.client", "ssl", "tenacity", "urllib.request"}) & loaded


@pytest.mark.parametrize(("word", "meant"), [("crate", "create"), ("distroy", "destroy"), ("kubctl", "kubectl")])
def test_a_misspelt_command(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([word]) == 2
    assert f"did you mean klab {meant}?" in capsys.readouterr().err


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 2
    assert HELP in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["plan"], ["plan", "1m2w", "--nope"], ["plan", "1m2w", "--seat", "x"], ["--nope"]]
)
def test_wrong_usage_has_a_hint_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "--help shows how it is used" in err


def test_a_failure_shows_message_details_and_hint(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(HostError("no memory", details=["needs 6 GiB", "has 1 GiB"], hint="close something"))
    assert app.run(["list"]) == 5
    assert capsys.readouterr().err == "error: no memory\n  needs 6 GiB\n  has 1 GiB\nhint: close something\n"


@pytest.mark.parametrize("arguments", [["--debug", "list"], ["list", "--debug"]])
def test_debug_shows_where_it_failed(arguments, failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(HostError("no memory"))
    assert app.run(arguments) == 5
    assert "Traceback" in capsys.readouterr().err


def test_debug_by_environment(failing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    failing(HostError("no memory"))
    monkeypatch.setenv("KLAB_DEBUG", "0")
    app.run(["list"])
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("KLAB_DEBUG", "1")
    app.run(["list"])
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_leaves_one_line_and_a_file(failing, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ZeroDivisionError("division\nby zero"))
    assert app.run(["list"]) == 70
    err = capsys.readouterr().err
    assert "this is a bug in klab" in err
    assert len(err.splitlines()) == 1
    crash = next((home / "crashes").iterdir())
    assert str(crash) in err
    assert crash.stat().st_mode & 0o777 == 0o600
    assert (home / "crashes").stat().st_mode & 0o777 == 0o700
    assert "Traceback" in crash.read_text()
    assert "command: klab list" in crash.read_text()


def test_two_bugs_at_one_time_leave_two_files(failing, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cli.terminal.crash.time.strftime", lambda _format: "20260101-000000-")
    before = os.umask(0)
    try:
        for number in range(2):
            failing(ZeroDivisionError(number))
            assert app.run(["list"]) == 70
    finally:
        os.umask(before)
    assert [file.stat().st_mode & 0o777 for file in (home / "crashes").iterdir()] == [0o600] * 2


def test_a_bug_where_klabs_home_has_no_usable_name(
    failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "a:b"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(ZeroDivisionError())
    assert app.run(["list"]) == 70
    assert f"{tmp_path}/klab-crash-" in capsys.readouterr().err


def test_a_bug_where_klabs_home_cannot_be_written(
    failing, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_text("a file where the folder should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing(ZeroDivisionError())
    assert app.run(["list"]) == 70
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_disk_or_a_missing_right_is_no_bug(number: int, failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(OSError(number, os.strerror(number), "/some/file"))
    assert app.run(["list"]) == 5
    err = capsys.readouterr().err
    assert os.strerror(number) in err
    assert "/some/file" in err


def test_who_stands_in_a_folder_that_is_gone(
    tmp_path: Path, failing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError) as caught:
        Path.cwd()
    failing(caught.value)
    assert app.run(["list"]) == 5
    err = capsys.readouterr().err
    assert "the working directory no longer exists" in err
    assert "hint: cd to another" in err
    monkeypatch.chdir(tmp_path)
    failing(FileNotFoundError(2, "No such file or directory", "/a/file"))
    assert app.run(["list"]) == 70


def test_ctrl_c(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert app.run(["list"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_ctrl_c_that_a_command_worded_itself(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(Interrupted("stopped half-way", hint="klab create continues"))
    assert app.run(["list"]) == 130
    assert "stopped half-way" in capsys.readouterr().err


def test_a_question_answered_with_no(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(click.Abort())
    assert app.run(["list"]) == 1
    assert "nothing was done" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["schema", "--help", "scenarios"])
def test_a_reader_that_went_away(words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*KLAB, words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("words", ["schema", "--help"])
def test_output_that_cannot_be_written(words: str) -> None:
    for target, code in ((">/dev/full", 5), (">&-", 0)):
        script = f"{sys.executable} -m lab.cli.main {words} {target}"
        done = subprocess.run(["bash", "-c", script], stderr=subprocess.PIPE, text=True)
        assert done.returncode == code
        assert "Traceback" not in done.stderr


CLOSED = (">&-", "2>&-", "<&- >&- 2>&-")


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("status", 3),
        ("destroy none", 3),
        ("list", 0),
        ("validate 1m2w", 0),
        ("validate /none.yaml", 2),
        ("--debug status none", 3),
    ],
)
def test_closed_streams_change_no_exit_code(words: str, code: int, closed: str) -> None:
    script = f"{sys.executable} -m lab.cli.main {words} {closed}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert "--debug" in words or "Traceback" not in done.stderr


def test_no_file_of_klabs_takes_the_place_of_a_closed_stream() -> None:
    code = "import os; from lab.cli.main import _open_closed_streams as o; o(); print(os.readlink('/proc/self/fd/2'))"
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{code}" 2>&-'], capture_output=True, text=True)
    assert done.stdout.strip() == os.devnull


# Presses Ctrl-C, in a process for each, at chosen steps of klab's from main.py's first line on.
PRESS = """
import os, signal, sys, traceback
sys.argv = ["klab", "list"]
steps = 0

def press(frame, event, _):
    global steps
    here = frame.f_code.co_filename.endswith("lab/cli/main.py") and event == "line"
    if steps or (here and LINES[frame.f_lineno] == "    import os"):
        steps += 1
        if steps == at:
            sys.settrace(None)
            os.kill(os.getpid(), SIGNAL)
    return press

def klab(number):
    global at
    at = number
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.dup2(writer, 2)
        sys.settrace(press)
        try:
            from lab.cli.main import main
            main()
        except SystemExit as error:
            sys.settrace(None)
            sys.stderr.flush()
            if not number:
                os.write(2, str(steps).encode())
            os._exit(error.code or 0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    said = b""
    while more := os.read(reader, 4096):
        said += more
    os.close(reader)
    return os.waitstatus_to_exitcode(os.wait()[1]), said.decode()

code, said = klab(0)
whole = int(said.split()[-1])
for number in [*range(1, 25), *range(25, whole * 95 // 100, whole // 25)]:
    code, said = klab(number)
    print(number, code, *said.split())
"""


# Before klab's first lines have run it has begun nothing: there the signal may end it as it ends any program.
@pytest.mark.parametrize(("number", "codes"), [(2, {130}), (15, {143, -15}), (1, {129, -1})])
def test_ctrl_c_at_any_moment_is_no_traceback(number: int, codes: set[int]) -> None:
    source = (Path(app.__file__).parent / "main.py").read_text().splitlines()
    heard = "import signal; signal.signal(1, signal.SIG_DFL)"  # the tests may run under nohup
    program = f"{heard}\nSIGNAL, LINES = {number}, {['', *source]!r}\n{PRESS}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    pressed = done.stdout.splitlines()
    assert len(pressed) > 40
    assert {int(line.split()[1]) for line in pressed} == codes
    assert {tuple(line.split()[2:]) for line in pressed} == {(), ("stopped",)}


# A program that klab has started, and how many of it are left.
AT_WORK = """
import sys
import click
from lab import process
from lab.cli import app, main
app.cli = click.Command("cli", callback=lambda: process.run(["sleep", sys.argv[1]], timeout=400))
run = app.run
app.run = lambda _: run([])
main.main()
"""


@pytest.mark.parametrize("by", ["kill", "kill -INT", "kill -HUP", "the terminal's end"])
def test_whatever_ends_klab_ends_what_it_has_started(by: str) -> None:
    length = f"3{secrets.randbelow(10**6)}.5"
    child, terminal = pty.fork()
    if child == 0:
        for number in (signal.SIGHUP, signal.SIGINT):  # the tests may run under nohup
            signal.signal(number, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-c", AT_WORK, length])  # noqa: S606
    started = ["pgrep", "-f", f"sleep {length}$"]
    while subprocess.run(started, stdout=subprocess.DEVNULL).returncode:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), os.read(terminal, 4096)
        time.sleep(0.05)
    if by.startswith("kill"):
        subprocess.run([*by.split(), str(child)], check=True)
    else:
        os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == {"kill": 143, "kill -INT": 130}.get(by, 129)
    assert subprocess.run(started, stdout=subprocess.DEVNULL).returncode == 1


def test_who_was_started_deaf_to_ctrl_c_stays_so() -> None:
    code = "import signal; from lab.cli import main; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    script = f"trap '' INT; {sys.executable} -c '{code}'"
    assert subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout == "True\n"


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.cli.terminal.output import coloured

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    assert coloured(Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(Terminal())
    monkeypatch.delenv("NO_COLOR")
    assert not coloured(sys.stderr)


def test_the_version() -> None:
    done = subprocess.run([*KLAB, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("klab 0.")


def test_the_checkouts_own_files_are_found() -> None:
    for name in ("Vagrantfile.j2", "boxes", "scenarios"):
        assert resources.path(name).exists()
    with pytest.raises(FileNotFoundError, match="missing from this installation"):
        resources.path("no-such-thing")
