"""One real lab for all high-availability tests: three control planes behind a virtual IP, two workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.real_lab import Lab, adopt, prepare


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        if kept := os.environ.get("KLAB_TEST_HOME"):
            # A lab that is there already, in the KLAB_HOME that it names, and stays: for whoever works on these tests.
            yield adopt(Path(kept), "ha-3m2w", "ha")
            return
        found = prepare(Path(tmp_path_factory.mktemp("klab", numbered=False)), "ha-3m2w", "ha")
        try:
            code = found.create()
            assert code == 0, f"klab create ended with {code}; its messages are above"
        except BaseException:
            found.destroy()
            raise
    yield found
    found.destroy()
