"""One real lab for all of `make soak`: three nodes, on which something counts all the time.

KLAB_TEST_HOME says which lab: one called `soak` of 1m2w that is there and stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.real_lab import Lab, shared
from support.soak import Soak


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    yield from shared(tmp_path_factory, pytestconfig, "1m2w", "soak")


@pytest.fixture(scope="session")
def soak(lab: Lab) -> Iterator[Soak]:
    made = Soak(lab)
    made.start()
    yield made
    made.end()
