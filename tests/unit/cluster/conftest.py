"""What several tests of the cluster's acts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.cluster_server import ClusterServer


@pytest.fixture
def cluster() -> Iterator[ClusterServer]:
    made = ClusterServer()
    yield made
    made.close()
