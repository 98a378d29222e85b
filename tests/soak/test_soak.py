"""Fifty rounds of snapshot and restore of a cluster at work: `make soak`.

KLAB_TEST_ROUNDS says how many rounds, KLAB_TEST_HOME which lab: one called `soak` of 1m2w that is there and stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.real_lab import adopt, prepare
from support.soak import Soak

if TYPE_CHECKING:
    from support.real_lab import Lab

ROUNDS = int(os.environ.get("KLAB_TEST_ROUNDS", "50"))


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def soak(lab: Lab) -> Iterator[Soak]:
    made = Soak(lab)
    made.start()
    yield made
    made.end()


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
def test_round(soak: Soak, number: int) -> None:
    soak.round(number)
