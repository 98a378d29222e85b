"""Files that stay a person's to read and write, whoever owns them; tried as another user."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from lab.machines.libvirt import own_files
from lab.machines.libvirt.volumes import LayerStore

PERSON, QEMU, STRANGER = 54321, 54322, 54323

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as several users")


def may(user: int, file: Path, act: str) -> bool:
    command = {"read": ["cat", str(file)], "write": ["truncate", "--size=1", str(file)]}[act]
    return (
        subprocess.run(command, user=user, group=user, extra_groups=[], capture_output=True, check=False).returncode
        == 0
    )


@needs_root
def test_a_file_stays_a_persons_when_libvirt_gives_it_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o711)
    file = tmp_path / "layer.img"
    monkeypatch.setattr(own_files.os, "geteuid", lambda: PERSON)
    own_files.make(file)
    try:
        os.getxattr(file, "system.posix_acl_access")
    except OSError:
        pytest.skip("no access control lists here")
    for owner in (PERSON, QEMU, 0):
        os.chown(file, owner, owner)
        assert (may(PERSON, file, "read"), may(PERSON, file, "write")) == (True, True)
        assert (may(QEMU, file, "read"), may(QEMU, file, "write")) == (owner == QEMU, owner == QEMU)
        assert (may(STRANGER, file, "read"), may(STRANGER, file, "write")) == (False, False)


def test_the_list_is_the_kernels(tmp_path: Path) -> None:
    """What `setfacl -m u:1000:rw` writes on a file of mode 0600 (acl 2.3)."""
    assert own_files.access_list(1000).hex() == (
        "02000000" "01000600ffffffff" "02000600e8030000" "04000000ffffffff" "10000600ffffffff" "20000000ffffffff"
    )  # fmt: skip


def test_a_new_file_is_empty_and_closed_and_none_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "one.ram"
    own_files.make(file)
    assert file.stat().st_size == 0
    assert not file.stat().st_mode & (stat.S_IRWXO | stat.S_IXGRP)
    with pytest.raises(FileExistsError):
        own_files.make(file)
    (tmp_path / "link.ram").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OSError, match="exists"):
        own_files.make(tmp_path / "link.ram")


def test_a_file_system_without_lists_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(own_files.os, "geteuid", lambda: PERSON)
    monkeypatch.setattr(own_files.os, "setxattr", refuse)
    own_files.make(tmp_path / "one.ram")
    assert stat.S_IMODE((tmp_path / "one.ram").stat().st_mode) == 0o600


def test_klab_changes_a_layer_only_where_it_may_read_all_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, strange = tmp_path / "box.img", set[Path]()
    monkeypatch.setattr(own_files, "readable", lambda file: file not in strange)
    monkeypatch.setattr(LayerStore, "base", lambda *_: box)
    monkeypatch.setattr(LayerStore, "backing", {"top.img": "low.img", "low.img": None})
    monkeypatch.setattr(LayerStore, "folder", str(tmp_path))
    store = LayerStore.__new__(LayerStore)
    assert store.owns("top.img")
    for file in (box, tmp_path / "low.img", tmp_path / "top.img"):
        strange = {file}
        assert not store.owns("top.img")
    strange = set()
    monkeypatch.setattr(LayerStore, "direct", False)
    assert not store.owns("top.img")
