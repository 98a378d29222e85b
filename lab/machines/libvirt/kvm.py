"""KVM as the system's libvirt has it: its QEMU opens /dev/kvm, whatever the person at the keyboard may open.

Domain capabilities tell whether libvirt offers KVM; that it runs a guest, the probe guest shows
(`lab.host.probe_guest`), as a transient machine on a small disk of its own. The guest reports its work as a panic,
which libvirt shows as the machine's state. No other end looks like that one: a guest that resets is gone, and one
that KVM cannot continue is paused.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from lab.host.kvm_probe import (
    KVM,
    KVM_SECONDS,
    Acceleration,
    Kvm,
    OwnQemu,
    acceleration,
    device_missing,
    overdue,
    probe_host,
    refused,
)
from lab.host.network import wants_private
from lab.host.private_libvirt import PrivateLibvirt
from lab.host.probe_guest import ROUNDS, boot_sector
from lab.host.profile import HostProfile, Obstacle
from lab.machines.libvirt import definitions, transfer
from lab.machines.libvirt.connection import absent, connect, ignore_missing, library, translate_errors
from lab.machines.libvirt.pools import DEFAULT_FOLDER
from lab.store import Home
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt

ARCH, MACHINE = "x86_64", "q35"
DISK_BYTES = 1 << 20
POLL_SECONDS = 0.1
# What the probe makes has this name, and the time at which it was made in it: a probe that was killed is cleared away.
_NAME = re.compile(r"klab-probe-(?P<made>[0-9]{1,12})-[0-9a-f]{8}")
LEFTOVER_SECONDS = 120
RIGHTS_HINT = "sudo usermod -aG kvm libvirt-qemu, then sudo systemctl restart libvirtd"


def profile(home: Home, cpus: int) -> HostProfile:
    """How labs' machines run on this host; see `lab.machines.features.Provider`."""
    with _qemu(home) as kvm:
        return probe_host(home, kvm, cpus)


def acceleration_now(home: Home) -> Acceleration:
    """Whether KVM runs labs' machines on this host, asked again whatever is known.

    Raises:
        HostError: as `acceleration`, or libvirt does not answer.
    """
    with _qemu(home) as kvm:
        return acceleration(home, kvm, again=True)


@contextlib.contextmanager
def _qemu(home: Home) -> Iterator[Kvm]:
    """What opens /dev/kvm for them."""
    private = PrivateLibvirt(home)
    if private.inside or wants_private(private):
        yield OwnQemu()
        return
    with contextlib.closing(connect()) as connection:
        yield LibvirtQemu(connection)


class LibvirtQemu:
    """The QEMU that a libvirtd starts; see `lab.host.kvm_probe.Kvm`."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self._connection = connection

    def version(self) -> str:
        with translate_errors("libvirt does not tell the version of its QEMU"):
            return f"QEMU {self._connection.getVersion()} of libvirt {self._connection.getLibVersion()}"

    def obstacle(self) -> Obstacle | None:
        try:
            self._connection.getDomainCapabilities(arch=ARCH, machine=MACHINE, virttype="kvm")
        except library().libvirtError as error:
            return device_missing() or Obstacle(
                f"libvirt does not offer KVM, although {KVM} exists: {error}", RIGHTS_HINT
            )
        try:
            return self.run_guest("kvm", KVM_SECONDS)
        except library().libvirtError as error:
            text = " ".join(str(error).split())
            return Obstacle(text, RIGHTS_HINT) if "Permission denied" in text else refused(text)

    def run_guest(self, kind: str, limit: float) -> Obstacle | None:
        """Boot the probe guest; nothing of it stays.

        Args:
            kind: libvirt's: `kvm` or `qemu`.
            limit: seconds that it may take.

        Returns:
            What went wrong; None where the guest has done its work.

        Raises:
            libvirtError: it does not start.
        """
        self._sweep()
        with _disk(self._connection) as (name, disk), _machine(self._connection, _domain(name, kind, disk)) as domain:
            return _outcome(domain, limit)

    def _sweep(self) -> None:
        """Remove what a probe that was killed has left."""
        for domain in self._connection.listAllDomains():
            if _left(domain.name()):
                ignore_missing(domain.destroy)
        for pool in self._connection.listAllStoragePools():
            if _left(pool.name()):
                _remove(pool)


def _left(name: str) -> bool:
    found = _NAME.fullmatch(name)
    return found is not None and int(found["made"]) < time.time() - LEFTOVER_SECONDS


@contextlib.contextmanager
def _disk(connection: libvirt.virConnect) -> Iterator[tuple[str, str]]:
    """A disk with the guest in a pool of its own: the pool's name, and the disk's path."""
    name = f"klab-probe-{int(time.time())}-{os.urandom(4).hex()}"
    pool = connection.storagePoolDefineXML(definitions.directory_pool(name, None, f"{DEFAULT_FOLDER}/{name}"))
    try:
        pool.build()
        pool.create()
        with tempfile.NamedTemporaryFile() as file:
            file.write(boot_sector(ROUNDS).ljust(DISK_BYTES, b"\0"))
            file.flush()
            transfer.upload(pool, name, Path(file.name))
        yield name, pool.storageVolLookupByName(name).path()
    finally:
        _remove(pool)


def _remove(pool: libvirt.virStoragePool) -> None:
    steps: tuple[Callable[[], object], ...] = (
        pool.refresh,
        lambda: [volume.delete() for volume in pool.listAllVolumes()],
        pool.destroy,
        pool.delete,
        pool.undefine,
    )
    for step in steps:
        with contextlib.suppress(library().libvirtError):  # half made, or half removed
            step()


@contextlib.contextmanager
def _machine(connection: libvirt.virConnect, xml: str) -> Iterator[libvirt.virDomain]:
    domain = connection.createXML(xml)
    try:
        yield domain
    finally:
        ignore_missing(domain.destroy)


def _outcome(domain: libvirt.virDomain, limit: float) -> Obstacle | None:
    library_ = library()
    waiting = {library_.VIR_DOMAIN_RUNNING, library_.VIR_DOMAIN_BLOCKED, library_.VIR_DOMAIN_NOSTATE}

    def ended() -> tuple[int, str] | None:
        try:
            state, reason = domain.state()
        except library_.libvirtError as error:
            if absent(error):
                return library_.VIR_DOMAIN_SHUTOFF, "it has ended without its work done"
            raise
        return None if state in waiting else (state, f"state {state}, reason {reason}")

    end = poll(ended, Deadline.after(limit), every=POLL_SECONDS)
    if end is None:
        return overdue()
    state, what = end
    return None if state == library_.VIR_DOMAIN_CRASHED else refused(f"the probe guest stopped: {what}")


def _domain(name: str, kind: str, disk: str) -> str:
    """The probe guest's machine, as much like a node's as it can be.

    Source: libvirt.org/formatdomain.html, "panic device": on_crash `preserve` keeps the panic as the machine's state.
    """
    cpu = "<cpu mode='host-model'/>" if kind == "kvm" else "<cpu mode='maximum'/>"
    return f"""
<domain type={quoteattr(kind)}>
  <name>{escape(name)}</name>
  <description>klab boots this for a moment, to see whether {escape(kind)} runs a guest</description>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='{ARCH}' machine='{MACHINE}'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  {cpu}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file={quoteattr(disk)}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <panic model='isa'/>
  </devices>
</domain>"""
