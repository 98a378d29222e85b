"""What others wrote reaches a terminal as text, and nothing else."""

from __future__ import annotations

import ast
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.cli.commands import logs
from lab.cli.terminal import output
from lab.cli.terminal.phases import Phases
from lab.cli.terminal.progress import LiveTable, PlainLines, show
from lab.cluster.events import Event
from lab.errors import LabError
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology

HOSTILE = "w1\x1b]0;title\x07\x1b[2J\rgood, 3 nodes\u202e"
SHOWN = "w1\\x1b]0;title\\x07\\x1b[2J\\x0dgood, 3 nodes\\u202e"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


Terminals = Callable[[], tuple[Terminal, Terminal]]


@pytest.fixture
def terminals(monkeypatch: pytest.MonkeyPatch) -> Terminals:
    """Puts standard output and standard error on terminals that can colour; pytest has its own until a test runs."""

    def install() -> tuple[Terminal, Terminal]:
        out, err = Terminal(), Terminal()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("TERM", "xterm")
        return out, err

    return install


def test_a_terminal_gets_control_characters_written_out(terminals: Terminals) -> None:
    out, err = terminals()
    output.echo(f"{HOSTILE}\tand\nmore")
    output.note(HOSTILE)
    assert [out.getvalue(), err.getvalue()] == [f"{SHOWN}\tand\nmore\n", f"{SHOWN}\n"]


def test_a_pipe_gets_what_there_is_but_never_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo(HOSTILE)
    output.note(HOSTILE)
    assert tuple(capsys.readouterr()) == (f"{HOSTILE}\n", f"{SHOWN}\n")


def test_half_a_character_of_a_files_name_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo("name\udcff")
    assert capsys.readouterr().out == "name\\udcff\n"


def test_an_error_keeps_klabs_colours_and_no_others(terminals: Terminals) -> None:
    _, err = terminals()
    output.show_error(LabError(HOSTILE, details=[f"{HOSTILE}\nsecond\r\nthird"], hint=HOSTILE))
    assert err.getvalue() == (
        f"\x1b[31m\x1b[1merror:\x1b[0m {SHOWN}\n  {SHOWN}\n  second\n  third\n\x1b[36mhint:\x1b[0m {SHOWN}\n"
    )


def test_what_is_long_in_an_error_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error(LabError("m" * 100_000, details=["d" * 100_000, "short"]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {'m' * 1000}... (99000 more characters)"
    assert lines[1:] == [f"  {'d' * 300}... (99700 more characters)", "  short"]


def test_a_row_of_a_table_stays_one_row() -> None:
    assert output.table(["a", "b"], [["one\ntwo", HOSTILE]]).splitlines()[1:] == [f"one\\x0atwo  {SHOWN}"]


def test_a_live_table_shows_what_others_wrote_as_text(terminals: Terminals, catalog) -> None:
    from rich.console import Console

    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)
    out, _ = terminals()
    table = LiveTable(plan, Console(file=out, force_terminal=True, width=300, color_system=None))
    table(Event(time=1.0, node="", phase="note", state="note", text=f"[bold]{HOSTILE}[/bold]"))
    table(Event(time=1.0, node="", phase="flannel", state="begin", text=f"[bold]{HOSTILE}[/bold]"))
    Console(file=out, force_terminal=True, width=300, color_system=None).print(table._draw())
    assert out.getvalue().count(f"[bold]{SHOWN}[/bold]") == 2
    for moment, text in ((0.0, ""), (5.0, "1 MiB of 3 MiB"), (10.0, f"2 MiB of 3 MiB {HOSTILE}")):
        table(Event(time=time.time() - 20 + moment, node="cp1", phase="pack", state="begin", text=text))
    Console(file=out, force_terminal=True, width=300, color_system=None).print(table._draw())
    assert f"pack 0:20 (2 MiB of 3 MiB {SHOWN})" in out.getvalue(), "since it began, and how far it is"
    table(Event(time=time.time(), node="cp1", phase="pack", state="done"))
    Console(file=out, force_terminal=True, width=300, color_system=None).print(table._draw())
    assert "pack done" in out.getvalue()
    assert "pack 0:20\n" in "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
    assert "\x1b]" not in out.getvalue()


@pytest.mark.parametrize("gone", ["stdout", "stderr"])
def test_a_closed_stream_is_nobody_to_tell(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, gone, None)
    output.echo("text")
    output.echo_json({})
    output.note("text")
    output.show_error(LabError("text", details=["more"], hint="hint"))
    assert not output.coloured(None)


def test_logs_on_a_terminal(terminals: Terminals) -> None:
    data = "boot\x1b[2J\r\nsnow\u2603\n".encode()
    out, _ = terminals()
    show = logs.GuestOutput()
    show(data[:14])
    show(data[14:])
    assert out.getvalue() == "boot\\x1b[2J\nsnow\u2603\n"


def test_logs_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    logs.GuestOutput()(b"boot\x1b[2J\r\n")
    assert capsys.readouterr().out == "boot\x1b[2J\n"


def test_every_command_prints_through_one_place() -> None:
    folder = Path(output.__file__).parents[1]
    tree = {file.name: ast.parse(file.read_text(encoding="utf-8")) for file in folder.rglob("*.py")}
    direct = {
        name
        for name, module in tree.items()
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"click.echo", "click.secho", "print"}
    }
    assert direct == {"output.py"}


def plan_1m2w() -> Plan:
    scenario = Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=2))
    return decide(scenario, load_catalog())


def lines_of(first: str = "boot", zero: float = 100.0) -> PlainLines:
    return PlainLines(Phases(plan_1m2w(), None, first, zero))


def test_a_log_tells_at_once_that_the_machines_start(capsys: pytest.CaptureFixture[str]) -> None:
    told = lines_of()
    told(Event(time=100.0, node="", phase="create", state="begin"))
    told(Event(time=161.0, node="w1", phase="cloud-init", state="begin"))
    told(Event(time=190.0, node="", phase="create", state="done"))
    assert capsys.readouterr().err == "[  0:00] starting the machines ...\n[  1:01] w1: cloud-init ...\n"


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock that reminders read."""

    def set_clock(moment: float) -> None:
        monkeypatch.setattr("lab.cli.terminal.progress.time.time", lambda: moment)

    return set_clock


def test_a_log_is_reminded_of_what_each_node_and_the_lab_wait_for(
    capsys: pytest.CaptureFixture[str], at: Callable[[float], None]
) -> None:
    told = lines_of()
    told(Event(100.0, "", "create", "begin"))
    at(160.0)
    told.remind()
    told(Event(161.0, "w1", "cloud-init", "begin"))
    told(Event(162.0, "", "the API server answers", "begin"))
    told(Event(163.0, "", "the API server answers", "begin", "connection refused"))
    told(Event(164.0, "cp1", "init", "retry", "attempt 2"))
    at(220.0)
    told.remind()
    told(Event(221.0, "", "the API server answers", "done"))
    for name in ("cp1", "w1", "w2"):
        told(Event(222.0, name, "ready", "done"))
    at(282.0)
    told.remind()
    assert capsys.readouterr().err.splitlines() == [
        "[  0:00] starting the machines ...",
        "[  1:00] still starting the machines; cp1, w1, w2: boot 1:00",
        "[  1:01] w1: cloud-init ...",
        "[  1:02] the API server answers ...",
        "[  1:04] cp1: init trying again (attempt 2)",
        "[  2:00] still the API server answers (connection refused); cp1: init, trying again; w1: cloud-init 0:59; "
        "w2: boot 2:00",
        "[  2:01] the API server answers done",
        "[  2:02] cp1: ready done",
        "[  2:02] w1: ready done",
        "[  2:02] w2: ready done",
        "[  3:02] still at work",
    ]


def test_how_far_gigabytes_are_is_told_once_and_then_each_minute(
    capsys: pytest.CaptureFixture[str], at: Callable[[float], None]
) -> None:
    told = lines_of("export", 95.0)
    at(98.0)
    told.remind()  # before any event
    for moment, text in ((100.0, "1 GiB of 9 GiB"), (105.0, "2 GiB of 9 GiB"), (110.0, "3 GiB of 9 GiB")):
        told(Event(moment, "", "box", "begin", text))
    told(Event(112.0, "w1", "pack", "begin", "1 MiB of 2 GiB"))
    told(Event(117.0, "w1", "pack", "begin", "1 GiB of 2 GiB"))
    told(Event(118.0, "stranger", "pack", "begin"))
    at(172.0)
    told.remind()
    assert capsys.readouterr().err.splitlines() == [
        "[  0:00] still export",
        "[  0:02] box ... (1 GiB of 9 GiB)",
        "[  0:14] w1: pack ... (1 MiB of 2 GiB)",
        "[  0:20] stranger: pack ...",
        "[  1:14] still box (3 GiB of 9 GiB); cp1, w2: export 1:17; w1: pack 1:00 (1 GiB of 2 GiB)",
    ]


def test_a_command_without_a_terminal_is_reminded_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event is news; that the reminder itself reminds is tests/unit/test_reminder.py's."""
    news: list[str] = []

    @contextlib.contextmanager
    def reminding(remind: Callable[[], None]) -> Iterator[Callable[[], None]]:
        assert isinstance(remind.__self__, PlainLines)  # type: ignore[attr-defined]
        yield lambda: news.append("news")
        news.append("over")

    monkeypatch.setattr("lab.cli.terminal.progress.reminding", reminding)
    with show(plan_1m2w(), as_json=False) as listener:
        listener(Event(1.0, "w1", "join", "begin"))
        listener(Event(2.0, "w1", "join", "begin", "one"))
        listener(Event(3.0, "w1", "join", "begin", "two"))  # how far it is: not printed, so no news
    assert news == ["news", "over"]
