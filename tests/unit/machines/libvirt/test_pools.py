"""The pools of a person's libvirt that labs lie in, over libvirt's own test driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest
from support.libvirt_host import OWNER, Host

from lab.errors import HostError
from lab.host.local import free_at
from lab.machines.libvirt import definitions, pools, provider
from lab.machines.libvirt.pools import LabPool, disk_room
from lab.machines.providers import provider_named


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host(cp1="off")


def define(host: Host, name: str, folder: Path | str, kind: str = "dir") -> libvirt.virStoragePool:
    source = "<source><name>vg0</name></source>" if kind == "logical" else ""
    xml = definitions.directory_pool(name, None, str(folder)).replace("type='dir'>", f"type='{kind}'>{source}")
    return host.connection.storagePoolDefineXML(xml)


def box_pool(host: Host, name: str = "default") -> libvirt.virStoragePool:
    return LabPool(host.connection, OWNER).box_pool(name)


def test_the_usual_pool_is_made_where_it_is_missing(host: Host) -> None:
    made = box_pool(host)
    assert (made.name(), made.isActive(), made.autostart()) == ("default", 1, 1)
    assert definitions.pool_path(made.XMLDesc()) == str(pools.DEFAULT_FOLDER)


def test_another_pool_that_has_the_usual_folder_is_taken(host: Host) -> None:
    define(host, "images", pools.DEFAULT_FOLDER)
    assert box_pool(host).name() == "images"
    assert [pool.name() for pool in host.connection.listAllStoragePools()] == ["images"]
    host.machines().start(["cp1"])
    host.folder.path.mkdir(parents=True, exist_ok=True)
    text = vagrantfile(host)
    assert "libvirt.storage_pool_name = 'images'" in text, "Vagrant would make a pool of the other name"


def vagrantfile(host: Host) -> str:
    machines = host.machines()
    pool = LabPool(host.connection, OWNER).find()
    assert pool is not None
    machines._provision.write_vagrantfile(pool, host.plan)
    return host.folder.vagrantfile.read_text()


def test_a_pool_that_is_off_is_started_and_not_read_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    define(host, "default", pools.DEFAULT_FOLDER)
    monkeypatch.setattr(libvirt.virStoragePool, "refresh", lambda *_: pytest.fail("a person's pool was read"))
    assert box_pool(host).isActive()
    assert box_pool(host).isActive()


def test_a_pool_that_does_not_start_is_named_with_its_folder(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pool: libvirt.virStoragePool) -> None:
        raise libvirt.libvirtError("cannot open directory '/srv/vm': No such file or directory")

    define(host, "vm", "/srv/vm")
    monkeypatch.setattr(libvirt.virStoragePool, "create", refuse)
    with pytest.raises(HostError, match="the storage pool 'vm' cannot be started") as caught:
        box_pool(host, "vm")
    assert "/srv/vm" in caught.value.hint
    assert "virsh pool-build vm" in caught.value.hint


@pytest.mark.parametrize("name", ["default", "fast"])
def test_a_pool_of_volumes_that_are_no_files_is_refused(host: Host, name: str) -> None:
    define(host, name, "/dev/vg0", "logical")
    define(host, "vm", "/srv/vm")
    with pytest.raises(HostError, match=f"the storage pool '{name}' is of type logical") as caught:
        box_pool(host, name)
    assert caught.value.details == ("pools of type dir here: vm",)
    assert "provider.libvirt.pool" in caught.value.hint


def test_a_pool_that_does_not_exist_names_those_that_do(host: Host) -> None:
    with pytest.raises(HostError, match="no storage pool called 'fast'") as caught:
        box_pool(host, "fast")
    assert caught.value.details == ("pools of type dir here: none",)


# --- room ---------------------------------------------------------------------------------------------


def test_the_room_is_that_of_the_pools_folder(host: Host, tmp_path: Path) -> None:
    define(host, "vm", tmp_path)
    room = disk_room(host.connection, "vm")
    assert (room.folder, room.free > 0) == (tmp_path, True)
    assert "provider.libvirt.pool" in room.elsewhere
    there = free_at(pools.DEFAULT_FOLDER)[0]
    assert disk_room(host.connection, "default").folder == there, "it is made by the first lab"


def test_a_folder_that_klab_may_not_look_at_is_asked_of_libvirt(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    define(host, "vm", "/closed/vm").create()
    monkeypatch.setattr(pools, "free_at", lambda folder: (folder.parent, 7))
    monkeypatch.setattr(libvirt.virStoragePool, "info", lambda _pool: [2, 100, 60, 40])
    room = disk_room(host.connection, "vm")
    assert (room.folder, room.free) == (Path("/closed/vm"), 40)


def test_klab_looks_where_the_labs_will_be(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define(host, "vm", tmp_path / "pool")
    (tmp_path / "pool").mkdir()
    monkeypatch.setattr("lab.machines.libvirt.connection.connect", lambda: host.connection)
    for private, folder in ((False, tmp_path / "pool"), (True, tmp_path)):
        monkeypatch.setattr(provider, "wants_private", lambda _private, answer=private: answer)
        assert provider_named("libvirt").disk_room(host.home, "vm").folder == folder
