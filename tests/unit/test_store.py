"""A lab's lock and its record: what a second klab meets."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import store
from lab.errors import Conflict, LabError, NotFound
from lab.store import Home, LabFolder, Record


@pytest.fixture
def folder(tmp_path: Path) -> LabFolder:
    return Home(tmp_path).lab("demo")


def lock_of(folder: LabFolder) -> Path:
    return folder.path.parent / ".demo.lock"


def test_who_holds_a_lab_is_named(folder: LabFolder) -> None:
    with folder.lock(), pytest.raises(Conflict, match=f"another klab \\(process {os.getpid()}\\)"), folder.lock():
        pass
    assert not lock_of(folder).exists()


def test_a_lock_that_went_with_its_lab_keeps_nobody_out(folder: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destroy ends, and removes the file, just between opening and locking it here."""
    flock: Callable[[int, int], None] = fcntl.flock
    gone: list[int] = []

    def late(handle: int, operation: int) -> None:
        if not gone:
            gone.append(os.fstat(handle).st_ino)
            lock_of(folder).unlink()
        flock(handle, operation)

    monkeypatch.setattr(store.fcntl, "flock", late)
    with folder.lock():
        assert gone
        assert lock_of(folder).read_text() == str(os.getpid())
        with pytest.raises(Conflict, match="another klab"), folder.lock():
            pass


def test_a_lab_that_somebody_has_just_destroyed_is_not_called_damaged(folder: LabFolder) -> None:
    with pytest.raises(NotFound, match="lab 'demo' is gone") as caught:
        folder.record()
    assert "klab list" in caught.value.hint


def test_a_damaged_record_is_not_said_to_be_mended_by_what_fails_on_it(folder: LabFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "lab.json").write_bytes(b"\xff{")
    with pytest.raises(LabError, match="the record of lab 'demo' is damaged") as caught:
        folder.record()
    assert "put that file back" in caught.value.hint
    assert "klab destroy" not in caught.value.hint


def test_a_record_by_another_version_of_klab_is_read(folder: LabFolder) -> None:
    folder.path.mkdir(parents=True)
    record = Record(id="1", name="demo", provider="libvirt", box="b", seat=0, phase="ready", created=1.0)
    folder.write_record(record)
    file = folder.path / "lab.json"
    file.write_text(file.read_text().replace("{", '{"of a later day": {},', 1))
    assert folder.record() == record
