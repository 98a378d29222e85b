"""klab doctor LAB: the words for what was found. What can be found: tests/unit/cluster/test_ailments.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cli import app
from lab.cluster import diagnostics
from lab.cluster.diagnostics import Finding, Result
from lab.machines import doctor
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.scenario.catalog import Catalog
from lab.scenario.library import load_scenario
from lab.store import Home, Record

START = Finding("machines", "w1", "its machine is stopped", "the provider reports stopped", "klab start one w1")
TOKEN = Finding("token", "", "there is no valid bootstrap token", "of 0 none", "klab token one")
FINE = Result("disk", (), "", "at most 20 % used")


@pytest.fixture(autouse=True)
def _lab(home: Path, catalog: Catalog) -> None:
    plan = decide(load_scenario("1m2w", catalog).scenario, catalog, name="one")
    folder = Home(home).lab("one")
    folder.path.mkdir(parents=True)
    (folder.path / "plan.json").write_text(to_json(plan))
    folder.write_record(Record("id", "one", "fake", "box", 0, "ready", 1.7e9))


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def install(*results: Result) -> list[str]:
        labs: list[str] = []

        def examine(folder: object, plan: object, record: Record, machines: object, **_: object) -> tuple[Result, ...]:
            labs.append(record.name)
            return results

        monkeypatch.setattr(diagnostics, "examine", examine)
        return labs

    return install


def test_a_healthy_lab(examined: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    labs = examined(FINE)
    assert app.run(["doctor", "one"]) == 0
    assert labs == ["one"]
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "CHECK  RESULT  SEEN",
        "disk   ok      at most 20 % used",
        "",
        "one is healthy",
    ]


def test_what_is_wrong_comes_with_evidence_and_repair(
    examined: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    examined(Result("machines", (START,), "", ""), FINE, Result("token", (TOKEN,), "", ""))
    assert app.run(["doctor", "one"]) == 9
    assert capsys.readouterr().out.splitlines() == [
        "CHECK     RESULT  SEEN",
        "machines  WRONG   on w1",
        "disk      ok      at most 20 % used",
        "token     WRONG   there is no valid bootstrap token",
        "",
        "w1: its machine is stopped",
        "  seen: the provider reports stopped",
        "  repair: klab start one w1",
        "",
        "there is no valid bootstrap token",
        "  seen: of 0 none",
        "  repair: klab token one",
    ]


def test_what_could_not_be_seen_is_not_called_healthy(
    examined: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    examined(FINE, Result("images", (), "containerd does not answer on w1", ""))
    assert app.run(["doctor", "one"]) == 9
    out = capsys.readouterr().out
    assert "images  not seen  containerd does not answer on w1" in out
    assert out.endswith("no problem was found in one, but not everything could be checked\n")


def test_as_json(examined: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    examined(Result("machines", (START,), "", ""), FINE)
    assert app.run(["doctor", "one", "--json"]) == 9
    found = json.loads(capsys.readouterr().out)
    assert (found["lab"], found["healthy"]) == ("one", False)
    assert found["checks"][0]["findings"] == [
        {
            "check": "machines",
            "node": "w1",
            "what": "its machine is stopped",
            "evidence": "the provider reports stopped",
            "repair": "klab start one w1",
            "causes": False,
        }
    ]
    examined(FINE)
    assert app.run(["doctor", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"] is True


def test_a_lab_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["doctor", "two"]) == 3
    assert "labs here: one" in capsys.readouterr().err


def test_without_a_lab_the_host_is_examined(
    examined: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labs = examined(FINE)
    monkeypatch.setattr(doctor, "examine", lambda _home: iter([doctor.Finding("libvirtd", ok=True, seen="answers")]))
    assert app.run(["doctor"]) == 0
    assert labs == []
    assert "libvirtd" in capsys.readouterr().out
