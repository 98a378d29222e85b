"""klab create when it is stopped: what is there then, and which command goes on with just that lab."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk

from lab.cli import create_flow
from lab.cli.create_flow import making, provider_for
from lab.errors import Conflict, Interrupted, UsageError
from lab.plan.model import create_command
from lab.store import Home, LabFolder


def test_the_command_line_once_more_is_about_the_same_lab() -> None:
    assert create_command(["1m2w"], None) == "klab create 1m2w"
    assert create_command(["./my lesson.yaml"], "l3", 4) == "klab create './my lesson.yaml' --name l3 --seat 4"
    assert create_command(["--from", "my file.klab"], None) == "klab create --from 'my file.klab'"


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """The homes whose private libvirt was to end."""
    found: list[Home] = []
    monkeypatch.setattr(create_flow, "stop_unused_private_libvirt", found.append)
    return found


def stopped(home: Home, folder: LabFolder) -> Interrupted:
    with pytest.raises(Interrupted) as caught, making(home, folder, "klab create x.yaml --name l3"):
        raise KeyboardInterrupt
    return caught.value


def test_ctrl_c_before_there_is_a_lab(home: Path, left: list[Home]) -> None:
    caught = stopped(Home(home), Home(home).lab("l3"))
    assert caught.message == "stopped; nothing of the lab has been made yet"
    assert caught.hint == "klab create x.yaml --name l3 begins anew"
    assert left == [Home(home)]


def test_ctrl_c_when_there_is_one(home: Path, left: list[Home]) -> None:
    folder, _ = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="l3")
    caught = stopped(Home(home), folder)
    assert caught.message == "stopped; the machines made so far are still there"
    assert caught.hint == "klab create x.yaml --name l3 again goes on from here; klab destroy l3 removes it"
    assert left == [Home(home)]


def test_any_other_failure_keeps_its_words(home: Path, left: list[Home]) -> None:
    with pytest.raises(Conflict, match="as it was"), making(Home(home), Home(home).lab("l3"), "klab create"):
        raise Conflict("as it was")
    assert left == [Home(home)]


def test_a_lab_keeps_its_provider(home: Path) -> None:
    folder, _ = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none", name="l3")
    assert provider_for("auto", folder.record()) == "fake"
    with pytest.raises(Conflict, match="exists on fake, not on libvirt"):
        provider_for("libvirt", folder.record())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("20m", 1200), ("1h30m", 5400), ("168h", 604800), ("0000000000000001m", 60)],
)
def test_durations(text: str, seconds: float) -> None:
    assert create_flow.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h0m", "1d", "-1", "1.5h", "m", "\u0663s", "1h 30m", "\x1b[2J"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        create_flow.parse_duration(text)


@pytest.mark.parametrize("text", ["169h", "604801", "9" * 5000, f"{10**32}h"])
def test_nobody_waits_for_more_than_a_week(text: str) -> None:
    with pytest.raises(UsageError, match="too long to wait") as caught:
        create_flow.parse_duration(text)
    assert len(caught.value.message) < 120
    assert "168h" in caught.value.hint
