"""What a host needs to run labs, as a list of checks. Nothing is changed and no daemon is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab import process
from lab.errors import LabError
from lab.host.capacity import HostFacts, host_facts
from lab.host.emulation.emulator import find_compiler
from lab.host.kvm_probe import probe_host, why_not_accelerated
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines import providers
from lab.machines.libvirt.connection import GROUP_HINT, library
from lab.machines.vagrant.command import Vagrant
from lab.store import Home

PLUGIN = "vagrant-libvirt"
PROGRAMS = ("vagrant", "qemu-system-x86_64", "qemu-img", "xorriso", "ssh", "ssh-keygen", "ip")
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
    """One check. The probe returns what it saw, or raises a LabError that says what is missing."""

    name: str
    probe: Callable[[], str]
    fatal: bool = True


def examine(home: Home) -> Iterator[Finding]:
    """Make every check, one after another."""
    for check in _checks(home):
        try:
            yield Finding(check.name, ok=True, seen=check.probe(), fatal=check.fatal)
        except LabError as error:
            seen = "; ".join((error.message, *error.details))
            yield Finding(check.name, ok=False, seen=seen, hint=error.hint, fatal=check.fatal)


def _checks(home: Home) -> list[Check]:
    return [
        *(Check(name, partial(process.find, name)) for name in PROGRAMS),
        Check("plugin " + PLUGIN, _plugin),
        Check("libvirt-python", lambda: str(library().getVersion())),
        Check("libvirtd", lambda: _libvirtd(home)),
        Check("hardware virtualization", lambda: _virtualization(home), fatal=False),
        Check("slower clocks for emulation", lambda: _slow_clock(home)),
        Check("memory", lambda: _memory(host_facts(home)), fatal=False),
        Check("disk", lambda: _disk(host_facts(home)), fatal=False),
        Check("boxes", lambda: _boxes(home), fatal=False),
    ]


def _plugin() -> str:
    if PLUGIN not in Vagrant(Path.cwd()).plugins():
        raise LabError(f"{PLUGIN} is not installed", hint=f"sudo apt-get install {PLUGIN}")
    return "installed"


def _libvirtd(home: Home) -> str:
    if PrivateLibvirt(home).holds_labs:
        return "private libvirtd, which holds labs"
    if providers.system_answers():
        return "system libvirtd answers"
    process.find("libvirtd")
    if os.geteuid() != 0:
        raise LabError("no system libvirtd answers", hint=f"sudo systemctl enable --now libvirtd; {GROUP_HINT}")
    for program in ("unshare", "nsenter", "virtlogd", "dnsmasq"):
        process.find(program)
    return "no system libvirtd; klab starts a private one when it makes a lab"


def _virtualization(home: Home) -> str:
    why = why_not_accelerated(home)
    if why:
        factor = probe_host(home).factor
        raise LabError(
            f"{why}; guests are emulated, plain arithmetic {factor:g} times slower",
            hint="switch on virtualization (VT-x, AMD-V) in the BIOS, or nested virtualization in the hypervisor above",
        )
    return "KVM runs a guest"


def _slow_clock(home: Home) -> str:
    if not why_not_accelerated(home):
        return "not needed"
    return find_compiler()


def _memory(facts: HostFacts) -> str:
    seen = f"{facts.memory / 1024:.1f} GiB free"
    if facts.memory < MEMORY:
        raise LabError(seen, hint=f"the smallest lab wants {MEMORY / 1024:.0f} GiB")
    return seen


def _disk(facts: HostFacts) -> str:
    seen = f"{facts.disk:.1f} GiB free in {facts.disk_path}"
    if facts.disk < DISK:
        raise LabError(seen, hint=f"a box and a lab want {DISK:.0f} GiB; KLAB_HOME moves klab elsewhere")
    return seen


def _boxes(home: Home) -> str:
    found = sorted(folder.name for folder in home.boxes.glob("*@*") if folder.is_dir())
    if not found:
        raise LabError("no box has been built yet", hint="klab box build")
    return ", ".join(found)
