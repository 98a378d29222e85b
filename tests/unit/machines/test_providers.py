from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.host import private_libvirt
from lab.machines import providers
from lab.machines.libvirt import connection
from lab.store import Home


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    monkeypatch.setattr(providers, "SOCKETS", ("absent", "sock"))
    monkeypatch.delenv("KLAB_LIBVIRT", raising=False)
    return Path("sock")


def test_no_socket_means_no_system_libvirtd(sockets: Path) -> None:
    assert not providers.system_answers()


def test_a_socket_left_by_a_dead_daemon_does_not_answer(sockets: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(sockets))
    assert not providers.system_answers()


def test_a_listening_socket_is_the_systems(sockets: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(sockets))
        server.listen()
        assert providers.system_answers()
        assert providers.enter_host_network(Home(tmp_path)) == providers.SYSTEM


def test_a_socket_that_refuses_this_user_says_how_to_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def __init__(self, *_words: object) -> None: ...
        def __enter__(self) -> Closed:
            return self

        def __exit__(self, *_words: object) -> None: ...
        def settimeout(self, _seconds: float) -> None: ...
        def connect(self, _path: str) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(providers.socket, "socket", Closed)
    with pytest.raises(HostError) as caught:
        providers.system_answers()
    assert "usermod -aG libvirt" in caught.value.hint


def test_without_root_and_without_a_libvirtd_the_ways_out_are_named(
    sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_libvirt.os, "geteuid", lambda: 1000)
    with pytest.raises(HostError) as caught:
        providers.enter_host_network(Home(tmp_path))
    for way in ("systemctl enable --now libvirtd", "as root", "virtualbox"):
        assert way in caught.value.hint


def test_asking_for_the_systems_libvirtd_never_starts_another(
    sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLAB_LIBVIRT", "system")
    with pytest.raises(HostError, match="no system libvirtd"):
        providers.enter_host_network(Home(tmp_path))


def test_libvirt_python_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "libvirt", None)
    with pytest.raises(HostError) as caught:
        connection.library()
    assert "klab[libvirt]" in caught.value.hint


@pytest.mark.parametrize(("installed", "provider"), [("libvirtd", "libvirt"), ("VBoxManage", "virtualbox")])
def test_auto_takes_what_is_installed(installed: str, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers.process, "have", lambda program: program == installed)
    assert providers.choose_provider("auto") == provider


def test_auto_without_either_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers.process, "have", lambda _program: False)
    with pytest.raises(HostError) as caught:
        providers.choose_provider("auto")
    assert "vagrant-libvirt" in caught.value.hint
