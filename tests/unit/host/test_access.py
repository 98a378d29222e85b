"""Rights, told apart by their cause. Texts of libvirt 11.3 and QEMU 10.0, transcribed from their sources."""

from __future__ import annotations

import grp
import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import access
from lab.process import Completed

GROUP = grp.struct_group(("libvirt", "x", 104, []))
ACCOUNT = pwd.struct_passwd(("teacher", "x", 1000, 1000, "", "/home/teacher", "/bin/sh"))


@pytest.mark.parametrize(
    ("login", "account", "says"),
    [
        ([1000], [1000], "usermod -aG libvirt"),
        ([1000], [1000, 104], "this login is older"),
        ([1000, 104], [1000, 104], "polkit or libvirtd.conf refuses"),
    ],
)
def test_the_group_is_named_only_to_whom_it_helps(
    monkeypatch: pytest.MonkeyPatch, login: list[int], account: list[int], says: str
) -> None:
    monkeypatch.setattr(grp, "getgrnam", lambda _name: GROUP)
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: ACCOUNT)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: login)
    monkeypatch.setattr(os, "getgrouplist", lambda *_account: account)
    error = access.refused_by_libvirt("Failed to connect socket: Permission denied")
    assert says in error.hint
    assert ("usermod" in error.hint) is (account == [1000])
    assert error.details == ("Failed to connect socket: Permission denied",)


def test_a_machine_without_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str) -> None:
        raise KeyError

    monkeypatch.setattr(grp, "getgrnam", none)
    assert "libvirt-daemon-system" in access.group_hint()


TEXTS = [
    "internal error: process exited while connecting to monitor: qemu-system-x86_64: -blockdev {}: "
    "Could not open '{}': Permission denied",
    "Cannot access storage file '{}' (as uid:64055, gid:64055): Permission denied",
    "Unable to open file: {}: Permission denied",
    "cannot open directory '{}': Permission denied",
]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may reach; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("text", TEXTS)
def test_a_closed_folder_on_the_way_to_a_file_is_named(open_folder: Path, text: str) -> None:
    closed = open_folder / "home"
    (closed / "pool").mkdir(parents=True)
    closed.chmod(0o750)
    assert access.closing_folder(open_folder / "file") is None
    error = access.closed_file("cp1 cannot be started", text.replace("{}", str(closed / "pool" / "cp1.img")))
    assert error.message == "cp1 cannot be started"
    assert "Permission denied" in error.details[0]
    assert f"may not enter {closed} (drwxr-x---)" in error.details[1]
    assert f"chmod o+x {closed}" in error.hint
    assert "usermod" not in error.hint


def test_a_home_that_root_may_not_enter_is_named_by_its_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "filesystem", lambda _path: "fuse.sshfs")
    error = access.closed_file("cp1 cannot be started", "Unable to open file: /home/a/console.log: Permission denied")
    assert "fuse.sshfs" in error.details[1]
    assert "KLAB_HOME" in error.hint


def test_what_apparmor_refuses_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'audit: type=1400 apparmor="DENIED" operation="open" profile="libvirt-1" name="/usr/x"'
    monkeypatch.setattr(access.process, "run", lambda words, **_how: Completed(tuple(words), 0, line + "\n", ""))
    error = access.closed_file("cp1 cannot be started", "Could not open '/usr/x': Permission denied")
    assert error.details[-1] == line
    assert "AppArmor" in error.hint
    monkeypatch.setattr(access.process, "run", lambda words, **_how: Completed(tuple(words), 1, "", ""))
    assert "namei -l /usr/x" in access.closed_file("x", "Could not open '/usr/x': Permission denied").hint


def test_words_that_name_no_file_are_shown_as_they_are() -> None:
    error = access.closed_file("cp1 cannot be started", "Permission denied")
    assert error.details == ("Permission denied",)
    assert "journalctl" in error.hint


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount_above(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\na@b:/ /home/a/my\\040files fuse.sshfs rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda _path, **_how: mounts)
    paths = ("/var/lib", "/home/a", "/homes/a", "/home/a/my files/klab")
    kinds = [access.filesystem(Path(path)) for path in paths]
    assert kinds == ["ext4", "nfs4", "ext4", "fuse.sshfs"]
    assert [access.is_foreign(kind) for kind in kinds] == [False, True, False, True]
