"""Unit tests never see the labs, the kubeconfig or the terminal of the person who runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.catalog import Catalog, load_catalog


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A KLAB_HOME and a HOME of the test's own."""
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "klab-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KLAB_DEBUG", "NO_COLOR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "klab-home"


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog()
