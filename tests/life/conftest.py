"""One real lab for all life-cycle and failure tests: file after file in the order of their names.

KLAB_TEST_HOME says which lab: one called `life` of 1m2w that is there and stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.real_lab import Lab, shared


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    yield from shared(tmp_path_factory, pytestconfig, "1m2w", "life")
