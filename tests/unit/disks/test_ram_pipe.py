"""A RAM image through a pipe: every byte once and in order, however its reader opens it."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.disks import ram_pipe

LARGE = random.Random(2).randbytes(5 << 20)  # noqa: S311


def image(definition: bytes, stream: bytes) -> bytes:
    return struct.pack("=16sII", b"LibvirtQemudSave", 2, len(definition)).ljust(92, b"\0") + definition + stream


@pytest.mark.parametrize("size", [1, 50, 92, 5000])
def test_the_beginning_is_all_before_the_stream(size: int) -> None:
    whole = image(b"<domain/>\0", b"QEVM" + LARGE)
    blocks = [whole[at : at + size] for at in range(0, 5000, size)]
    assert ram_pipe.head(blocks) == image(b"<domain/>\0", b"")


@pytest.mark.parametrize("cut", [0, 10, 95])
def test_an_image_that_ends_before_its_stream_is_none(cut: int) -> None:
    with pytest.raises(ValueError, match=f"after {cut} of"):
        ram_pipe.head([image(b"<domain/>\0", b"")[:cut]])


@pytest.mark.parametrize("content", [b"", b"short", LARGE])
def test_it_is_read_as_a_file_is(content: bytes, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    pipe.write_text("left by a kill")
    with ram_pipe.fed(pipe, [content[:100], content[100:]]) as path:
        assert path == str(pipe)
        assert Path(path).read_bytes() == content
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"short", LARGE])
def test_what_is_not_read_in_the_first_go_is_there_in_the_second(content: bytes, tmp_path: Path) -> None:
    """As libvirt 11.2 and later read the beginning alone."""
    with ram_pipe.fed(tmp_path / "pipe", [b"head", b"head" + content]) as path:
        for _ in range(2):
            handle = os.open(path, os.O_RDONLY)
            assert os.read(handle, 4) == b"head"
            os.close(handle)
        assert Path(path).read_bytes() == content


@pytest.mark.parametrize("reads", [0, 10])
def test_a_reader_may_leave_early_or_never_come(reads: int, tmp_path: Path) -> None:
    with ram_pipe.fed(tmp_path / "pipe", [LARGE]) as path:
        if reads:
            with Path(path).open("rb") as file:
                assert file.read(reads) == LARGE[:reads]
    assert list(tmp_path.iterdir()) == []


def broken() -> Iterator[bytes]:
    yield LARGE
    raise ZeroDivisionError


@pytest.mark.parametrize("reader", ["content", "fails"])
def test_what_keeps_the_bytes_from_coming_ends_them_and_is_told(reader: str, tmp_path: Path) -> None:
    def read(path: str) -> None:
        assert Path(path).read_bytes() == LARGE
        if reader == "fails":
            raise OSError("too short")

    with pytest.raises(ZeroDivisionError), ram_pipe.fed(tmp_path / "pipe", broken()) as path:
        read(path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_pipe_the_reader_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"), ram_pipe.fed(tmp_path / "gone" / "pipe", [b""]):
        pytest.fail("there is nothing to read")
