"""Machines as klab's users have them, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import workstation
from support.workstation import Workstation


@pytest.fixture(scope="session")
def new_workstation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Workstation]]:
    """Starts a workstation of a Debian, by its codename, on which the user has run `make install`."""
    if why := workstation.why_not():
        pytest.skip(why)
    with ExitStack() as stack:

        def start(suite: str) -> Workstation:
            folder = tmp_path_factory.mktemp(f"workstation-{suite}")
            found = stack.enter_context(workstation.workstation(workstation.installed(suite), folder))
            found.put_clone()
            return found

        yield start


@pytest.fixture(scope="session")
def tiny_box(request: pytest.FixtureRequest) -> Path:
    """The folder of the tiny box that contract tests use; see tests/contract/tinybox.py."""
    from contract import tinybox

    assert request.config.cache is not None
    folder = request.config.cache.mkdir("tinybox")
    tinybox.build(folder)
    return folder
