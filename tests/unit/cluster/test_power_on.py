"""The thread that powers machines on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import log, process
from lab.cluster.wait.power_on import PowerOn
from lab.waiting import Deadline


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    log.begin([])
    yield
    log.begin([])


class Machines:
    """Starts a program while it makes machines."""

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        process.run(["true"], timeout=deadline.left)
        on_line(f"{nodes} are up")

    def cancel(self) -> None:
        pass


def test_what_it_runs_is_in_the_log_of_its_lab(tmp_path: Path) -> None:
    """Another lab is worked on in another thread meanwhile, whose log was chosen later."""
    machines: Any = Machines()
    log.about(tmp_path / "mine.log")
    power = PowerOn(machines, ["cp1"], Deadline.after(60), tmp_path / "up.log")
    log.begin([])
    log.about(tmp_path / "other.log")
    power.start()
    power.join()
    assert power.error is None
    assert power.ended()
    assert "true: " in (tmp_path / "mine.log").read_text()
    assert not (tmp_path / "other.log").exists() or "true: " not in (tmp_path / "other.log").read_text()
    assert (tmp_path / "up.log").read_text() == "['cp1'] are up\n"
