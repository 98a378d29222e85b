"""Labs on the stand-in for VBoxManage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.vbox_lab import Programs, VirtualBoxLab
from support.vboxmanage import VirtualBox

from lab import process
from lab.machines.vagrant import command as vagrant
from lab.machines.vagrant import provider
from lab.scenario.catalog import Catalog
from lab.store import Home

OpenLab = Callable[..., VirtualBoxLab]


@pytest.fixture
def open_lab(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> OpenLab:
    """A lab whose machines are in these states: `open_lab(cp1="running", w1="saved")`."""

    def make(**states: str) -> VirtualBoxLab:
        programs = Programs(VirtualBox.make(tmp_path / "vbox"))
        monkeypatch.setattr(process, "run", programs.run)
        monkeypatch.setattr(vagrant.shutil, "which", lambda _program: "/usr/bin/vagrant")
        monkeypatch.setattr(provider, "OFF_POLL_SECONDS", 0.01)
        monkeypatch.setattr(provider, "PRESS_SECONDS", 0.0)
        return VirtualBoxLab(Home(tmp_path), catalog, programs, states)

    return make
