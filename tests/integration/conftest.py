"""What the integration tests take from the box that `make test` has built before."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.store import Home


@pytest.fixture(scope="session")
def kubeadm() -> Path:
    """The kubeadm that went into the box; it runs on the host as well."""
    found = sorted(Home.default().cache.glob("programs/*/bin/kubeadm"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.fail("no kubeadm has been built here; klab box build makes one")
    return found[-1]
