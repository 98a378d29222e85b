"""klab as its tests call it: in this process, with what it printed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.cli import app

Klab = Callable[..., tuple[str, str]]


@pytest.fixture
def klab(capsys: pytest.CaptureFixture[str]) -> Klab:
    def run(*words: str, code: int = 0) -> tuple[str, str]:
        got = app.run(words)
        out, err = capsys.readouterr()
        assert got == code, err
        return out, err

    return run
