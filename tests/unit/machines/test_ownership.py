"""Marks that others may have written: read as what they are, or worded."""

from __future__ import annotations

import pytest

from lab.errors import LabError
from lab.machines.ownership import Owner, owner_in_metadata

ID = "6f1d7a52-0000-4000-8000-000000000001"


def test_a_mark_is_found_again() -> None:
    owner = Owner(ID, 3, 1.5)
    assert owner_in_metadata(owner.metadata_element) == ID
    assert owner_in_metadata(f"<x/><klab:lab seat='3' id=\"{ID}\"/>") == ID
    assert owner_in_metadata("<lab seat='3'><other id='x'/></lab>") is None


@pytest.mark.parametrize("lab_id", ["", "1", "x" * 36])
def test_an_id_that_is_none_is_worded(lab_id: str) -> None:
    with pytest.raises(LabError, match="is not the id of a lab") as caught:
        _ = Owner(lab_id, 0, 0.0).pool_uuid
    assert "lab.json" in caught.value.hint
