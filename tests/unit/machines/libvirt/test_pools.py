"""The pools of a person's libvirt that labs lie in, over libvirt's own test driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest
from support.libvirt_host import OWNER, Host

from lab.errors import HostError
from lab.host.local import free_at
from lab.machines.libvirt import connection, definitions, pools, provider
from lab.machines.libvirt.pools import LabPool, base_volume, disk_room, forget_box
from lab.machines.libvirt.qemu_user import QemuUser
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


# --- copies of boxes ------------------------------------------------------------------------------------

BOX = "klab/debian-13-0011aabb"


def put(pool: libvirt.virStoragePool, name: str, below: str | None = None) -> str:
    xml = definitions.raw_volume(name) if below is None else definitions.overlay_volume(name, 1 << 20, below)
    return str(pool.createXML(xml).path())


@pytest.fixture
def shelf(host: Host) -> libvirt.virStoragePool:
    """A pool with a person's own image, a box's copy and that of another box."""
    pool = define(host, "default", pools.DEFAULT_FOLDER)
    pool.create()
    for name in ("windows.qcow2", base_volume(BOX), base_volume("klab/other-99")):
        put(pool, name)
    return pool


def test_a_box_leaves_the_pool_and_nothing_else_does(host: Host, shelf: libvirt.virStoragePool) -> None:
    forget_box(host.connection, BOX)
    forget_box(host.connection, BOX)
    left = {volume.name() for volume in shelf.listAllVolumes()}
    assert left == {"windows.qcow2", "klab-VAGRANTSLASH-other-99_vagrant_box_image_1.0.0_box.img"}


def test_a_volume_whose_file_is_gone_is_in_nobodys_way(
    host: Host, shelf: libvirt.virStoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a lab that was just destroyed is in the list of the pool around it."""
    gone = put(shelf, "klab-0a1b")
    describe = libvirt.virStorageVol.XMLDesc

    def described(volume: libvirt.virStorageVol, flags: int = 0) -> str:
        if volume.path() == gone:
            host.connection.storageVolLookupByPath("/no/such/volume")  # libvirt's own error
        return str(describe(volume, flags))

    monkeypatch.setattr(libvirt.virStorageVol, "XMLDesc", described)
    forget_box(host.connection, BOX)
    assert base_volume(BOX) not in shelf.listVolumes()


def test_a_copy_that_somebodys_disk_lies_on_stays(host: Host, shelf: libvirt.virStoragePool) -> None:
    """Another person's lab, or a machine that is none of klab's."""
    base = shelf.storageVolLookupByName(base_volume(BOX)).path()
    lab = define(host, "klab-of-another-person", pools.DEFAULT_FOLDER / "klab-of-another-person")
    lab.create()
    put(lab, "klab-demo_cp1.img", base)
    forget_box(host.connection, BOX)
    assert base_volume(BOX) in shelf.listVolumes()
    lab.destroy()
    forget_box(host.connection, BOX)
    assert base_volume(BOX) in shelf.listVolumes(), "what is in a pool that is off cannot be seen"
    lab.undefine()
    forget_box(host.connection, BOX)
    assert base_volume(BOX) not in shelf.listVolumes()


def test_a_box_that_leaves_the_store_leaves_libvirt(
    host: Host, shelf: libvirt.virStoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "connect", lambda: host.connection)
    monkeypatch.setattr(provider, "wants_private", lambda _private: True)
    provider_named("libvirt").forget_box(host.home, "debian-13@0011aabb")
    assert base_volume(BOX) in shelf.listVolumes(), "a private libvirt that does not run has none"
    monkeypatch.setattr(provider, "wants_private", lambda _private: False)
    provider_named("libvirt").forget_box(host.home, "debian-13@0011aabb")
    assert base_volume(BOX) not in shelf.listVolumes()


def test_who_may_not_use_libvirt_has_put_no_box_there(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_private: object) -> bool:
        raise HostError("libvirt does not let this user in", hint="join its group")

    monkeypatch.setattr(provider, "wants_private", closed)
    provider_named("libvirt").forget_box(host.home, "debian-13@0011aabb")


@pytest.mark.parametrize("kept", [True, False])
def test_destroy_leaves_the_copy_to_the_box(host: Host, shelf: libvirt.virStoragePool, kept: bool) -> None:
    (host.home.boxes / ("debian-13@0011aabb" if kept else "another")).mkdir(parents=True)
    host.machines(box="debian-13@0011aabb").destroy(print)
    assert (base_volume(BOX) in shelf.listVolumes()) is kept


# --- the way to a pool ----------------------------------------------------------------------------------

# Of Debian's libvirt 11.3, shortened; the security model of its QEMU driver.
CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu>
<secmodel><model>apparmor</model><doi>0</doi></secmodel>
<secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+64055</baselabel></secmodel>
</host></capabilities>"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A person's home with a folder for disks in it, both closed; what lies above is open."""
    folder = tmp_path / "home" / "vm"
    folder.mkdir(parents=True, mode=0o700)
    for each in (tmp_path, *tmp_path.parents):
        if (mode := each.stat().st_mode) & 0o011 != 0o011:  # pytest's own
            each.chmod(mode | 0o011)
    (tmp_path / "home").chmod(0o700)
    return tmp_path / "home"


@pytest.mark.parametrize(("text", "owner"), [(CAPABILITIES, (64055, 64055)), ("<capabilities/>", None)])
def test_whom_qemu_runs_as(text: str, owner: tuple[int, int] | None) -> None:
    assert definitions.emulator_owner(text) == owner
    assert definitions.emulator_owner(CAPABILITIES.replace("+64055:", "system_u:")) is None


def test_a_pool_below_a_closed_folder_is_refused_with_that_folder(
    host: Host, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    define(host, "vm", home / "vm")
    monkeypatch.setattr(libvirt.virConnect, "getCapabilities", lambda _connection: CAPABILITIES)
    with pytest.raises(HostError, match="out of reach for QEMU, which libvirt runs as") as caught:
        box_pool(host, "vm")
    assert caught.value.details[1].endswith(f"may not walk through {home}")
    assert f"setfacl -m u:64055:x {home}" in caught.value.hint
    home.chmod(0o711)
    with pytest.raises(HostError) as caught:
        box_pool(host, "vm")
    assert caught.value.details[1].endswith(f"may not walk through {home}/vm")
    (home / "vm").chmod(0o711)
    assert box_pool(host, "vm").isActive()


def test_owner_and_group_have_rights_of_their_own(home: Path) -> None:
    uid, gid = home.stat().st_uid, home.stat().st_gid
    assert QemuUser("me", uid, {gid}).closed(home / "vm") is None
    assert QemuUser("other", uid + 1, {gid}).closed(home / "vm") == home
    for folder in (home, home / "vm"):
        folder.chmod(0o710)
    assert QemuUser("other", uid + 1, {gid}).closed(home / "vm") is None
    assert QemuUser("other", uid + 1, {gid + 1}).closed(home / "vm") == home


def test_a_folder_with_an_access_list_counts_as_open(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listxattr", lambda _path: ["system.posix_acl_access"])
    assert QemuUser("other", 64055, {64055}).closed(home / "vm") is None


def test_a_qemu_of_roots_gets_everywhere(host: Host, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    define(host, "vm", home / "vm")
    text = CAPABILITIES.replace("64055", "0")
    monkeypatch.setattr(libvirt.virConnect, "getCapabilities", lambda _connection: text)
    assert box_pool(host, "vm").isActive()
