"""One real lab for all of `make soak`: three nodes, on which something counts all the time.

KLAB_TEST_HOME says which lab: one called `soak` of 1m2w that is there and stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.real_lab import Lab, adopt, prepare
from support.soak import Soak


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        if kept := os.environ.get("KLAB_TEST_HOME"):
            yield adopt(Path(kept), "1m2w", "soak")
            return
        found = prepare(Path(tmp_path_factory.mktemp("klab", numbered=False)), "1m2w", "soak")
        try:
            code = found.create()
            assert code == 0, f"klab create ended with {code}; its messages are above"
        except BaseException:
            found.destroy()
            raise
    yield found
    found.destroy()


@pytest.fixture(scope="session")
def soak(lab: Lab) -> Iterator[Soak]:
    made = Soak(lab)
    made.start()
    yield made
    made.end()
