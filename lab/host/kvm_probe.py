"""Does hardware virtualization really run a guest here?

The presence of /dev/kvm proves little: there are hosts on which KVM answers every question
and runs each guest instruction by instruction, so that a kernel never comes up. So a guest
of 512 bytes is booted (`lab.host.probe_guest`) under a time limit, by whatever opens /dev/kvm
for the labs' machines: a QEMU of klab's own, or the system's libvirt (`lab.machines.libvirt.kvm`).

Where KVM does not manage that, the same guest under emulation, against the same work done
natively, gives the factor by which guests are slower (`lab.host.emulation.pace`). It is rough: real
guests also wait for devices.

host.json keeps that KVM runs the guest, and the factor, until the host boots again or QEMU changes. It keeps that
KVM does not run it only where emulation did so in a fraction of the time, right afterwards: a right that is missing,
a module that is not loaded, a hypervisor that has the processor, a host that was busy are asked about each time.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from lab import process, records
from lab.errors import HostError, MachineError, ProgramTimeout
from lab.files import write_atomic
from lab.host.emulation.pace import Pace, emulated, measured, wanted_rate
from lab.host.probe_guest import QEMU, ROUNDS, run_guest
from lab.host.profile import HostProfile, Obstacle
from lab.store import Home

KVM = Path("/dev/kvm")
CPUS = Path("/proc/cpuinfo")
# Hardware takes less than half a second for all of it, BIOS included.
KVM_SECONDS = 10.0
# Emulation that takes less has shown that the host was not just busy.
QUICK_SECONDS = KVM_SECONDS / 2
HARDWARE_HINT = (
    "switch on virtualization (VT-x, AMD-V) in the BIOS, or nested virtualization in the hypervisor above this machine"
)
# Linux, arch/x86/kernel/cpu/feat_ctl.c: a processor whose BIOS has switched VT-x off does not show the flag.
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
_FLAGS = re.compile(r"^flags\s*:(?P<flags>.*)$", re.MULTILINE)
_TAKEN = "Device or resource busy"


class Kvm(Protocol):
    """What opens /dev/kvm for the labs' machines."""

    def version(self) -> str:
        """Its QEMU: what is known of another one says nothing."""
        ...

    def obstacle(self) -> Obstacle | None:
        """Boot the probe guest on KVM; takes little more than `KVM_SECONDS` at most.

        Raises:
            HostError: it cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class Acceleration:
    """What keeps KVM from running guests, None where nothing does, and how many times slower they are without it."""

    obstacle: Obstacle | None
    factor: float


@dataclass(frozen=True, slots=True)
class _Kept:
    """host.json: what was found, and for which boot of the host and which QEMU.

    `seen`: KVM does not run the guest, and time alone changes nothing about that. Older klabs kept every refusal.
    """

    boot: str
    qemu: str
    accelerated: bool
    factor: float
    why: str
    seen: bool = False


def probe_host(home: Home, kvm: Kvm, cpus: int = 0) -> HostProfile:
    """How this host runs guests.

    Args:
        home: klab's home.
        kvm: what opens /dev/kvm for them.
        cpus: virtual CPUs of the lab that is to run; see `emulated`.

    Raises:
        HostError: QEMU is missing, it cannot run a guest in any way, or another hypervisor has the processor's
            virtualization; or as `emulated`.
    """
    found = acceleration(home, kvm)
    if found.obstacle is None:
        return HostProfile(accelerated=True, dilation=wanted_rate(1.0))
    if found.obstacle.taken:
        # A lab that is made without KVM stays without it.
        raise HostError("KVM cannot be used at the moment", details=[found.obstacle.why], hint=found.obstacle.hint)
    return emulated(home, cpus, found.obstacle)


def acceleration(home: Home, kvm: Kvm, *, again: bool = False) -> Acceleration:
    """Whether KVM runs guests here.

    Args:
        home: klab's home.
        kvm: what opens /dev/kvm for them.
        again: ask, whatever is known.

    Raises:
        HostError: QEMU is missing, or it cannot run a guest in any way.
    """
    file, key = home.root / "host.json", (_boot_id(), kvm.version())
    kept = _read(file, key)
    if kept is not None and not again:
        if kept.accelerated:
            return Acceleration(None, 1.0)
        if kept.seen:
            return Acceleration(Obstacle(kept.why, HARDWARE_HINT), kept.factor)
    found, seen = _ask(kvm, kept.factor if kept is not None else 1.0)
    why = found.obstacle.why if found.obstacle is not None else ""
    wanted = _Kept(*key, accelerated=not why, factor=found.factor, why=why, seen=seen)
    if wanted != kept:
        write_atomic(file, json.dumps(asdict(wanted), indent=2) + "\n")
    return found


def _ask(kvm: Kvm, factor: float) -> tuple[Acceleration, bool]:
    """What there is now, and whether it stays so; `factor` is 1.0 where it is unknown."""
    obstacle = kvm.obstacle()
    if obstacle is None:
        return Acceleration(None, 1.0), False
    pace = Pace(factor, seconds=0.0)
    if obstacle.overdue or factor == 1.0:
        pace = measured()
    return Acceleration(obstacle, pace.factor), obstacle.overdue and pace.seconds <= QUICK_SECONDS


def _read(file: Path, key: tuple[str, str]) -> _Kept | None:
    try:
        kept = records.build(_Kept, records.parse(file.read_text()))
    except (OSError, ValueError):
        return None  # never asked, or by another klab
    return kept if (kept.boot, kept.qemu) == key and 1 <= kept.factor < float("inf") else None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# --- what keeps KVM from it ---------------------------------------------------------------------------------


def device_missing() -> Obstacle | None:
    """The reason why there is no /dev/kvm; None where there is one."""
    if KVM.exists():
        return None
    flags = _FLAGS.search(CPUS.read_text())
    for flag, module in _MODULES.items():
        if flags is not None and flag in flags["flags"].split():
            return Obstacle(f"{KVM} is missing: the kernel's module {module} is not loaded", f"sudo modprobe {module}")
    return Obstacle(f"{KVM} is missing: the processor or the BIOS does not offer virtualization", HARDWARE_HINT)


def overdue() -> Obstacle:
    """The probe guest did not end within `KVM_SECONDS`."""
    return Obstacle(
        f"KVM did not run a small guest within {KVM_SECONDS:.0f} s, although {KVM} exists", HARDWARE_HINT, overdue=True
    )


def refused(text: str) -> Obstacle:
    """QEMU did not start the guest on KVM, or it ended without its work done; `text` is what was said of it."""
    if _TAKEN in text:
        hint = "end the machines of VirtualBox, or of whatever other hypervisor runs here; then the same command again"
        return Obstacle(f"another hypervisor has the processor's virtualization: {text}", hint, taken=True)
    return Obstacle(f"KVM does not run a guest: {text}", HARDWARE_HINT)


class OwnQemu:
    """A QEMU that klab starts itself, as the private libvirt's are: by the same user."""

    def version(self) -> str:
        return process.run([QEMU, "--version"], timeout=30).stdout.partition("\n")[0]

    def obstacle(self) -> Obstacle | None:
        missing = device_missing()
        if missing is not None:
            return missing
        if not os.access(KVM, os.R_OK | os.W_OK):
            return Obstacle(f"{KVM} may not be used by this user", "sudo usermod -aG kvm $USER, then log in again")
        try:
            run_guest("kvm", ROUNDS, KVM_SECONDS)
        except ProgramTimeout:
            return overdue()
        except MachineError as error:
            return refused("; ".join(error.details))
        return None
