"""One real lab for all end-to-end tests: three VMs, real kubeadm, real Kubernetes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.real_lab import Lab, adopt, prepare, say

# Somewhere in the middle of making the machines, each time.
INTERRUPT_AFTER_SECONDS = 15
KILL_AFTER_SECONDS = 30


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    # Half an hour without a word would look like a hang: what is said here goes past pytest's capture.
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        if kept := os.environ.get("KLAB_TEST_HOME"):
            # A lab that is there already, in the KLAB_HOME that it names, and stays: for whoever works on these tests.
            yield adopt(Path(kept), "1m2w", "e2e")
            return
        found = _make(Path(tmp_path_factory.mktemp("klab", numbered=False)))
    yield found
    found.destroy()


def _make(folder: Path) -> Lab:
    found = prepare(folder, "1m2w", "e2e")
    try:
        say("create, cut off by Ctrl-C")
        stopped = found.create_cut_off(signal.SIGINT, INTERRUPT_AFTER_SECONDS)
        assert stopped.returncode == 130, stopped.stderr
        assert "goes on from here" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        say("create again, cut off by kill -9; the next one must go on from there")
        killed = found.create_cut_off(signal.SIGKILL, KILL_AFTER_SECONDS)
        assert killed.returncode == -signal.SIGKILL
        assert (found.folder / "lab.json").exists()
        code = found.create()
        assert code == 0, f"klab create ended with {code}; its messages are above"
    except BaseException:
        found.destroy()
        raise
    return found
