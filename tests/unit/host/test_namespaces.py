"""A thread that could not get all the way into other namespaces is moved back, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.host import namespaces


def test_a_thread_that_got_half_way_is_moved_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    moves: list[list[str]] = []

    def move(handles: list[tuple[int, int]]) -> None:
        moves.append([str(Path(f"/proc/self/fd/{handle}").readlink()) for handle, _ in handles])
        if len(moves) == 1:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(namespaces, "_move", move)
    monkeypatch.chdir(tmp_path)
    here = namespaces.Namespaces.of("thread-self")
    assert here is not None
    with pytest.raises(HostError, match="cannot enter its private libvirt"), namespaces.entered(os.getpid()):
        pytest.fail("it is not there")
    assert moves[1:] == [[here.net, here.mnt]]
    assert Path.cwd() == tmp_path
