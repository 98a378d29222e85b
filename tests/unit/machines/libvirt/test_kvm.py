"""What the system's libvirt tells of KVM, over libvirt's own test driver; real guests: tests/contract/test_kvm.py."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import libvirt
import pytest

from lab.host import kvm_probe
from lab.host.profile import Obstacle
from lab.machines.libvirt import connection, definitions, kvm
from lab.machines.libvirt.kvm import LibvirtQemu
from lab.store import Home

# libvirt 11.3 on a host without /dev/kvm, and two of what its QEMU 10.0 said, the first on a KVM that runs nothing
# (both recorded); the last is transcribed from QEMU, accel/kvm/kvm-all.c.
UNSUPPORTED = "invalid argument: the accel 'kvm' is not supported by '/usr/bin/qemu-system-x86_64' on this host"
ASSERTION = (
    "internal error: QEMU unexpectedly closed the monitor (vm='klab-probe-1795965749-7dcc0231'): "
    "qemu-system-x86_64: error: failed to set MSR 0x10a to 0xc000069\n"
    "qemu-system-x86_64: target/i386/kvm/kvm.c:3877: kvm_buf_set_msrs: "
    "Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed."
)
DENIED = "Could not access KVM kernel module: Permission denied"
BUSY = "ioctl(KVM_CREATE_VM) failed: Device or resource busy"
RUNNING, PAUSED, CRASHED = 1, 3, 6


class Connection:
    """libvirt's test driver with KVM: a machine that is started is in a state at once."""

    def __init__(self, state: int = CRASHED, *, offers: bool = True, error: str = "") -> None:
        connection.library()
        self._real = libvirt.open("test:///default")
        self._state, self._offers, self._error = state, offers, error
        self.started: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def getDomainCapabilities(self, **_words: str) -> str:  # noqa: N802
        if not self._offers:
            raise libvirt.libvirtError(UNSUPPORTED)
        return "<domainCapabilities/>"

    def createXML(self, xml: str) -> Any:  # noqa: N802
        self.started.append(xml)
        if self._error:
            raise libvirt.libvirtError(self._error)
        name = kvm._NAME.search(xml)
        assert name is not None
        return Guest(machine(self._real, name[0]), self._state)

    @property
    def left(self) -> list[str]:
        return sorted(each.name() for each in (*self._real.listAllDomains(), *self._real.listAllStoragePools()))


class Guest:
    """A machine of the test driver, whose machines do nothing but run, in another state."""

    def __init__(self, real: Any, state: int) -> None:
        self._real, self._state = real, state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def state(self) -> list[int]:
        return [self._state, 0]


def machine(real: Any, name: str) -> Any:
    return real.createXML(
        f"<domain type='test'><name>{name}</name><memory>8192</memory><os><type>hvm</type></os></domain>"
    )


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def upload(pool: Any, name: str, file: Path) -> None:
        assert file.stat().st_size == kvm.DISK_BYTES
        pool.createXML(definitions.raw_volume(name))

    (tmp_path / "kvm").touch()
    monkeypatch.setattr(kvm_probe, "KVM", tmp_path / "kvm")
    monkeypatch.setattr(kvm, "KVM_SECONDS", 0.1)
    monkeypatch.setattr(kvm.transfer, "upload", upload)


def obstacle(host: Connection) -> Obstacle:
    found = LibvirtQemu(host).obstacle()  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_guest_that_reports_its_work_is_kvm_and_leaves_nothing() -> None:
    host = Connection()
    before = host.left
    assert LibvirtQemu(host).obstacle() is None  # type: ignore[arg-type]
    assert host.left == before
    (xml,) = host.started
    assert "<domain type='kvm'>" in xml.replace('"', "'")


@pytest.mark.parametrize(("state", "late"), [(RUNNING, True), (PAUSED, False)])
def test_any_other_end_is_an_obstacle_and_leaves_nothing(state: int, late: bool) -> None:
    host = Connection(state)
    before = host.left
    assert obstacle(host).overdue == late
    assert host.left == before


@pytest.mark.parametrize(
    ("error", "hint", "taken"),
    [(ASSERTION, "BIOS", False), (DENIED, "usermod -aG kvm libvirt-qemu", False), (BUSY, "VirtualBox", True)],
)
def test_a_guest_that_does_not_start_is_told_by_its_reason(error: str, hint: str, taken: bool) -> None:
    host = Connection(error=error)
    before, found = host.left, obstacle(host)
    assert hint in found.hint
    assert (found.taken, found.overdue) == (taken, False)
    assert "\n" not in found.why
    assert host.left == before


def test_a_libvirt_without_kvm_starts_nothing(tmp_path: Path) -> None:
    host = Connection(offers=False)
    assert "libvirt-qemu" in obstacle(host).hint, "the device is there"
    (tmp_path / "kvm").unlink()
    assert "is missing" in obstacle(host).why
    assert host.started == []


def test_what_a_killed_probe_has_left_is_cleared_away_and_nothing_else() -> None:
    host, now = Connection(), int(time.time())
    names = [f"klab-probe-{now - 1000}-0123abcd", f"klab-probe-{now}-0123abcd", "klab-probe-1", "klab-demo_cp1"]
    for name in names:
        machine(host._real, name)
        host.storagePoolDefineXML(definitions.directory_pool(name, None, f"/nowhere/{name}"))
    before = host.left
    assert LibvirtQemu(host).obstacle() is None  # type: ignore[arg-type]
    assert host.left == [name for name in before if name != names[0]]


def test_the_private_libvirts_machines_are_asked_for_by_a_qemu_of_klabs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[type] = []
    monkeypatch.setattr(kvm, "acceleration", lambda _home, found, again: asked.append(type(found)))
    monkeypatch.setattr(kvm, "connect", Connection)
    for private in (True, False):
        monkeypatch.setattr(kvm, "wants_private", lambda _libvirt, answer=private: answer)
        kvm.acceleration_now(Home(tmp_path))
    assert asked == [kvm_probe.OwnQemu, LibvirtQemu]
