"""A person's own files: nothing but regular files is read or written, and they stay as they were."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lab.errors import NotFound, UsageError
from lab.files import read_limited, write_outside


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 1024)
    assert read_limited(file, 1024) == b"x" * 1024
    with pytest.raises(UsageError, match="is larger than 1023 bytes"):
        read_limited(file, 1023)
    with pytest.raises(NotFound, match="there is no file"):
        read_limited(tmp_path / "missing", 1)


@pytest.mark.parametrize("kind", ["folder", "fifo", "null", "zero", "link to a fifo"])
def test_what_is_not_a_regular_file_is_refused_before_it_is_opened(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "p"
    if kind == "folder":
        place.mkdir()
    elif kind in ("null", "zero"):
        place = Path("/dev") / kind
    else:
        target = place if kind == "fifo" else tmp_path / "q"
        os.mkfifo(target)
        if target != place:
            place.symlink_to(target)
    with pytest.raises(UsageError, match=r" is a (folder|FIFO|character device)\n"):
        read_limited(place, 10)


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_not_a_regular_file_is_not_replaced(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "p"
    place.mkdir() if kind == "folder" else os.mkfifo(place)
    before = place.stat().st_ino
    with pytest.raises(UsageError):
        write_outside(place, "x")
    assert place.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [place]


def test_a_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "real", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_outside(link, "new")
    assert (link.is_symlink(), file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (True, "new", 0o640)
    assert sorted(tmp_path.iterdir()) == [link, file]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "theirs"
    file.write_text("old")
    os.chown(file, 12345, 23456)
    write_outside(file, "new")
    there = file.stat()
    assert (there.st_uid, there.st_gid, file.read_text()) == (12345, 23456, "new")


@pytest.mark.parametrize(("mode", "umask", "expected"), [(0o600, 0o000, 0o600), (0o644, 0o027, 0o640)])
def test_a_new_file_has_its_mode(mode: int, umask: int, expected: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_outside(tmp_path / "f", "x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == expected


def test_a_file_that_must_not_be_replaced_is_not(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write_outside(file, "first", replaces=False)
    with pytest.raises(FileExistsError):
        write_outside(file, "second", replaces=False)
    assert (file.read_text(), list(tmp_path.iterdir())) == ("first", [file])


def test_a_new_file_may_be_like_another(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "one").chmod(0o640)
    write_outside(tmp_path / "two", "text", replaces=False, like=tmp_path / "one")
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o640
