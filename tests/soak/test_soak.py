"""Fifty rounds of snapshot and restore of a cluster at work: `make soak`. KLAB_TEST_ROUNDS says how many rounds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.soak import Soak

ROUNDS = int(os.environ.get("KLAB_TEST_ROUNDS", "50"))


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
def test_round(soak: Soak, number: int) -> None:
    soak.round(number)
