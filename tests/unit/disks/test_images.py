"""Images as files: holes are passed over, and a qcow2's content stays the same whatever the file below is called."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.disks import images
from lab.errors import ProgramError

MIB = 1 << 20


def whole(file: Path) -> bytes:
    found = bytearray()
    for at, data in images.stretches(file):
        found[at:] = bytes(at - len(found)) + data
    return bytes(found)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as out:
        out.seek(9 * MIB)
        out.write(b"here")
        out.truncate(20 * MIB)
    assert whole(file) == file.read_bytes()
    *stretches, last = images.stretches(file)
    assert last == (20 * MIB, b"")
    assert sum(len(data) for _, data in stretches) < MIB


@pytest.mark.parametrize("content", [b"", b"a", b"QFI\xfb", b"QFI\xfb" + bytes(range(256)) * 4])
def test_odd_files_are_read_too(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "odd"
    file.write_bytes(content)
    assert len(whole(file)) == len(content)


def create(file: Path, below: Path | None = None) -> Path:
    words = ["-b", str(below), "-F", "qcow2", str(file)] if below else [str(file), "8M"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)
    return file


def put(file: Path, byte: int, at: str) -> None:
    subprocess.run(["qemu-io", "-c", f"write -P {byte} {at} 64k", str(file)], check=True, capture_output=True)


def reads(file: Path, byte: int, at: str) -> bool:
    done = subprocess.run(
        ["qemu-io", "-r", "-c", f"read -P {byte} {at} 64k", str(file)], capture_output=True, text=True
    )
    return done.returncode == 0 and "verification failed" not in done.stdout


def test_a_layer_reads_the_same_on_a_file_of_another_name(tmp_path: Path) -> None:
    base = create(tmp_path / "base.img")
    put(base, 1, "0")
    layer = create(tmp_path / "layer.img", base)
    put(layer, 2, "1M")
    before = whole(layer)
    other = base.rename(tmp_path / "quite-another-name-which-is-longer.img")
    images.lay_on(layer, other)
    assert reads(layer, 1, "0")
    assert reads(layer, 2, "1M")
    assert whole(layer) == before
    put(layer, 3, "1M")
    assert whole(layer) != before


def test_layers_become_one_and_those_above_do_not_notice(tmp_path: Path) -> None:
    layers = [create(tmp_path / "0.img")]
    for i in range(1, 4):
        layers.append(create(tmp_path / f"{i}.img", layers[-1]))
    for i, layer in enumerate(layers):
        put(layer, i + 1, f"{i}M")
    for _ in range(2):  # it may be done again
        images.commit(layers[0], layers[2])
    images.lay_on(layers[3], layers[0])
    layers[1].unlink()
    layers[2].unlink()
    for i in range(4):
        assert reads(layers[3], i + 1, f"{i}M")


def test_a_merge_that_fails_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ProgramError):
        images.commit(tmp_path / "none", tmp_path / "nothing")


def test_to_disk(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    images.to_disk(file)
    with pytest.raises(OSError, match="No such file"):
        images.to_disk(tmp_path / "none")
