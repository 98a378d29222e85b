"""What the integration tests take from the box that `make test` has built before."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.compiled import default_box_program


@pytest.fixture(scope="session")
def kubeadm() -> Path:
    """The kubeadm that went into the box; it runs on the host as well."""
    return default_box_program("kubeadm")
