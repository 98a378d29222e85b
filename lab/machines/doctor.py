"""What a host needs to run labs, as a list of checks. Nothing is changed and no daemon is started."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab import packages, process
from lab.errors import LabError, Remedy
from lab.host import access
from lab.host.capacity import DiskRoom, HostFacts, home_room, host_facts
from lab.host.emulation.slow_clock import ensure_library, find_compiler
from lab.host.firewalls import conflict
from lab.host.kvm_probe import Acceleration
from lab.host.local import LocalHost
from lab.host.network import system_answers
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.libvirt.connection import library
from lab.machines.libvirt.kvm import acceleration_now
from lab.machines.libvirt.pools import DEFAULT_POOL
from lab.machines.providers import choose_provider, provider_named
from lab.machines.vagrant.command import Vagrant
from lab.machines.virtualbox import host as virtualbox_host
from lab.store import Home

PLUGIN = "vagrant-libvirt"
PROGRAMS = ("vagrant", "qemu-img", "xorriso", "ssh", "ssh-keygen", "ip")
# The smallest lab, one node of 2 GiB beside what the host itself needs; disk for box and lab.
MEMORY = 3 * 1024
DISK = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `ok`, what was seen, what to do about it, and whether labs can run without."""

    name: str
    ok: bool
    seen: str
    hint: str = ""
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Check:
    """One check. The probe returns what it saw, or raises a LabError that tells what is missing."""

    name: str
    probe: Callable[[], str]
    fatal: bool = True


@dataclass(frozen=True, slots=True)
class Probes:
    """What the checks ask of this machine.

    `find` gives a program's path; `plugins` are Vagrant's; `acceleration` is what KVM does now, whatever was
    known; `libvirt_here` whether this machine has libvirt; `virtualbox` the version of VirtualBox that can run
    machines, None where it is not installed. Each raises a LabError where it cannot tell.
    """

    home: Home
    find: Callable[[str], str] = process.find
    plugins: Callable[[], Collection[str]] = lambda: Vagrant(Path.cwd()).plugins()
    libvirt_here: Callable[[], bool] = provider_named("libvirt").installed
    virtualbox: Callable[[], str] | None = field(
        default_factory=lambda: virtualbox_host.check if process.have("VBoxManage") else None
    )
    libvirt_python: Callable[[], str] = lambda: str(library().getVersion())
    system_libvirtd: Callable[[], bool] = system_answers
    user: Callable[[], int] = os.geteuid
    firewalls: Callable[[], str] = conflict
    filesystem: Callable[[Path], str] = access.filesystem
    acceleration: Callable[[Home], Acceleration] = acceleration_now
    slow_clock: Callable[[Home], Path] = ensure_library
    facts: Callable[[Home], HostFacts] = lambda home: host_facts(LocalHost(home), home_room(LocalHost(home)))
    machine_disks: Callable[[Home], DiskRoom] = lambda home: _machine_disks(home)


def examine(host: Probes) -> Iterator[Finding]:
    """Make every check, one after another."""
    for check in _checks(host):
        try:
            yield Finding(check.name, ok=True, seen=check.probe(), fatal=check.fatal)
        except LabError as error:
            seen = "; ".join((error.message, *error.details))
            yield Finding(check.name, ok=False, seen=seen, hint=error.hint, fatal=check.fatal)


def _checks(host: Probes) -> list[Check]:
    """Those that every host needs, and those of the providers that are here; where none is, libvirt's."""
    virtualbox_alone = host.virtualbox is not None and not host.libvirt_here()
    return [
        *(Check(name, functools.partial(host.find, name)) for name in PROGRAMS),
        *([] if host.virtualbox is None else [Check("VirtualBox", host.virtualbox, fatal=virtualbox_alone)]),
        *([] if virtualbox_alone else _checks_of_libvirt(host)),
        Check("klab's folder", lambda: _home(host), fatal=False),
        Check("memory", lambda: _memory(host.facts(host.home)), fatal=False),
        Check("disk for boxes", lambda: _disk(host.facts(host.home).disks), fatal=False),
        Check("disk for machines", lambda: _disk(host.machine_disks(host.home)), fatal=False),
        Check("boxes", lambda: _boxes(host.home), fatal=False),
    ]


def _checks_of_libvirt(host: Probes) -> list[Check]:
    acceleration = functools.cache(lambda: host.acceleration(host.home))
    return [
        Check("qemu-system-x86_64", functools.partial(host.find, "qemu-system-x86_64")),
        Check("plugin " + PLUGIN, lambda: _plugin(host)),
        Check("libvirt-python", host.libvirt_python),
        Check("libvirtd", lambda: libvirtd(host)),
        Check("firewall", lambda: _firewall(host), fatal=False),
        Check("hardware virtualization", lambda: _virtualization(acceleration()), fatal=False),
        Check("slower clocks for emulation", lambda: _slow_clock(host, acceleration())),
    ]


def _plugin(host: Probes) -> str:
    if PLUGIN not in host.plugins():
        raise LabError(f"{PLUGIN} is not installed", hint=packages.PLUGIN_HINT)
    return "installed"


def libvirtd(host: Probes) -> str:
    """Which libvirtd labs would use.

    Raises:
        LabError: there is none, and klab cannot start one.
    """
    if PrivateLibvirt(host.home).holds_labs:
        return "private libvirtd, which holds labs"
    if host.system_libvirtd():
        return "system libvirtd answers"
    host.find("libvirtd")
    if host.user() != 0:
        raise LabError(
            "no system libvirtd answers", hint=f"sudo systemctl enable --now libvirtd; {access.group_hint()}"
        )
    for program in ("unshare", "nsenter", "virtlogd", "dnsmasq"):
        host.find(program)
    return "no system libvirtd; klab starts a private one when it makes a lab"


def _home(host: Probes) -> str:
    kind = host.filesystem(host.home.root)
    seen = f"{host.home.root} is on {kind or 'a file system of unknown type'}"
    if access.is_foreign(kind):
        raise LabError(
            f"{seen}: root may be nobody there, and boxes are built and a private libvirt is run by root",
            hint="set KLAB_HOME to a local folder; with a built box and the system's libvirtd labs run as it is",
        )
    return seen


def _firewall(host: Probes) -> str:
    if PrivateLibvirt(host.home).holds_labs or not host.system_libvirtd():
        return "not concerned: the private libvirt has a network of its own"
    if problem := host.firewalls():
        raise LabError(
            f"{problem}: guests get no address, or no way to other networks",
            hint='sudo apt-get install iptables; write firewall_backend = "iptables" into /etc/libvirt/network.conf; '
            "sudo systemctl restart libvirtd",
        )
    return "nothing known overrules libvirt's rules"


def _virtualization(found: Acceleration) -> str:
    if found.obstacle is not None:
        raise LabError(
            f"{found.obstacle.why}; guests are emulated, plain arithmetic {found.factor:g} times slower",
            hint=found.obstacle.hint,
        )
    return "KVM runs a guest"


def _slow_clock(host: Probes, found: Acceleration) -> str:
    if found.obstacle is None or found.obstacle.taken:
        return "not needed"
    # Root installs the library when a lab needs it; here nothing is changed.
    return find_compiler() if host.user() == 0 else str(host.slow_clock(host.home))


def _memory(facts: HostFacts) -> str:
    seen = f"{facts.memory / 1024:.1f} GiB free"
    if facts.memory < MEMORY:
        raise LabError(seen, hint=f"the smallest lab needs {MEMORY / 1024:.0f} GiB")
    return seen


def _disk(room: DiskRoom) -> str:
    if room.gib < DISK:
        raise LabError(str(room), hint=f"a box and a lab need {DISK:.0f} GiB; {room.elsewhere}")
    return str(room)


def _machine_disks(home: Home) -> DiskRoom:
    return provider_named(choose_provider("auto")).disk_room(home, DEFAULT_POOL)


def _boxes(home: Home) -> str:
    found = sorted(folder.name for folder in home.boxes.glob("*@*") if folder.is_dir())
    if not found:
        raise LabError("no box has been built yet", hint=Remedy("box build"))
    return ", ".join(found)
