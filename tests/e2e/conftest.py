"""One real lab for all end-to-end tests: three VMs, real kubeadm, real Kubernetes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support.real_lab import Lab, say, shared

# Somewhere in the middle of making the machines, each time.
INTERRUPT_AFTER_SECONDS = 15
KILL_AFTER_SECONDS = 30


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    yield from shared(tmp_path_factory, pytestconfig, "1m2w", "e2e", make=_make)


def _make(found: Lab) -> int:
    say("create, cut off by Ctrl-C")
    stopped = found.create_cut_off(signal.SIGINT, INTERRUPT_AFTER_SECONDS)
    assert stopped.returncode == 130, stopped.stderr
    assert "continues from here" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    say("create again, cut off by kill -9; the next one must continue from there")
    killed = found.create_cut_off(signal.SIGKILL, KILL_AFTER_SECONDS)
    assert killed.returncode == -signal.SIGKILL
    assert (found.folder / "lab.json").exists()
    return found.create()
