"""Unit tests never see the labs, the kubeconfig or the terminal of the person who runs them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lab import waiting
from lab.cluster.wait import supervisor, watch
from lab.scenario.catalog import Catalog, load_catalog


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KLAB_HOME and a HOME of the test's own, whatever the test calls its fixtures."""
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "klab-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KLAB_DEBUG", "NO_COLOR", "VAGRANT_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _power_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: whether what was written is on it, a power failure alone would tell."""
    monkeypatch.setattr(os, "fsync", lambda _file: None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The KLAB_HOME of the test."""
    return tmp_path / "klab-home"


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait for a lab that asks again at once, and gives a lost machine no time to come back."""
    for name in ("POLL_SECONDS", "API_POLL_SECONDS"):
        monkeypatch.setattr(watch, name, 0.01)
    for name in ("STATE_POLL_SECONDS", "GONE_GRACE_SECONDS"):
        monkeypatch.setattr(supervisor, name, 0.01)


class PatientClock:
    """A clock for what waits: each pause is over at once, and its time has passed all the same."""

    def __init__(self) -> None:
        self._paused = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._paused

    def sleep(self, seconds: float) -> None:
        self._paused += seconds


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """klab waits as patiently as ever, and nobody waits for klab.

    For what is asked in klab's own time; what another thread has to do first gets no time to do it.
    """
    clock = PatientClock()
    for module in (waiting, watch, supervisor):
        monkeypatch.setattr(module, "time", clock)
