"""The program in docs/how-to/programs.md: it runs as it is written there, over fake machines."""

from __future__ import annotations

import builtins
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.shelved import shelved_box

from lab.app import create
from lab.host.capacity import DiskRoom, HostFacts
from lab.scenario.catalog import Catalog
from lab.scenario.library import Loaded, load_scenario
from lab.snapshots.store import SnapshotStore
from lab.store import Home

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "programs.md"
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.usefixtures("quick_watch")


@pytest.fixture
def _fake_host(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with fake machines and a box, and with room for any lab; 1m2w without Kubernetes."""

    def plain(name: str, catalog: Catalog, _kustomize: object) -> Loaded:
        loaded = load_scenario(name, catalog)
        return replace(loaded, scenario=replace(loaded.scenario, bootstrap="none"))

    facts = HostFacts(1 << 20, 64, DiskRoom(home, 1 << 50, ""), ())
    shelved_box(Home(home))
    monkeypatch.setattr(create, "load_scenario", plain)
    monkeypatch.setattr(create, "choose_provider", lambda _wanted: "fake")
    monkeypatch.setattr(create, "host_facts", lambda *_: facts)


@pytest.mark.usefixtures("_fake_host")
def test_the_program_of_the_page_runs(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = PROGRAM.findall(PAGE.read_text(encoding="utf-8"))
    folder = Home(home).lab("lesson")
    there: list[list[str]] = []

    def broken(_prompt: str) -> str:
        there.append([m.name for m in SnapshotStore(folder).manifests()])
        return ""

    monkeypatch.setattr(builtins, "input", broken)
    exec(compile(program, str(PAGE), "exec"), {"__name__": "__main__"})  # noqa: S102 - the program of our own page
    told = capsys.readouterr().out.splitlines()
    assert there == [["before"]]
    assert "the lab create begin " in told
    assert "cp1 save done " in told
    assert "cp1 revert done " in told
    assert not folder.exists
