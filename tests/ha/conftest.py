"""One real lab for all high-availability tests: three control planes behind a virtual IP, two workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.real_lab import Lab, shared


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    yield from shared(tmp_path_factory, pytestconfig, "ha-3m2w", "ha")
