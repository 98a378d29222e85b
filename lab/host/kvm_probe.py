"""Does hardware virtualization really run a guest here?

The presence of /dev/kvm proves little: there are hosts on which KVM answers every question
and runs each guest instruction by instruction, so that a kernel never comes up. So klab
boots a guest of 512 bytes (`lab.host.probe_guest`) under a time limit.

Where KVM does not manage that, the same guest under emulation, against the same work done
natively, gives the factor by which guests are slower (`lab.host.emulation.pace`). It is rough: real
guests also wait for devices. The answer is kept in host.json until the host boots again or QEMU changes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import process, records
from lab.errors import MachineError, ProgramTimeout
from lab.files import write_atomic
from lab.host.emulation.emulator import wanted_rate
from lab.host.emulation.pace import emulated, slowness
from lab.host.probe_guest import QEMU, ROUNDS, run_guest
from lab.host.profile import HostProfile
from lab.store import Home

KVM = Path("/dev/kvm")
# Hardware takes less than half a second for all of it, BIOS included.
KVM_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """host.json: what was found, and for which boot of the host and which QEMU."""

    boot: str
    qemu: str
    accelerated: bool
    factor: float
    why: str


def probe_host(home: Home, cpus: int = 0) -> HostProfile:
    """How this host runs guests; found out once, then remembered.

    Args:
        home: klab's home.
        cpus: virtual CPUs of the lab that is to run; see `emulated`.

    Raises:
        HostError: QEMU is missing, or it cannot run a guest in any way; or as `emulated`.
    """
    kept = _kept(home)
    if kept.accelerated:
        return HostProfile(accelerated=True, factor=1.0, dilation=wanted_rate(1.0))
    return emulated(kept.factor, cpus)


def why_not_accelerated(home: Home) -> str:
    """Why guests do not run on hardware virtualization here; empty when they do."""
    return _kept(home).why


def _kept(home: Home) -> _Kept:
    file = home.root / "host.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    qemu = process.run([QEMU, "--version"], timeout=30).stdout.partition("\n")[0]
    try:
        kept = records.build(_Kept, records.parse(file.read_text()), complete=True)
        if (kept.boot, kept.qemu) == (boot, qemu) and 1 <= kept.factor < float("inf"):
            return kept
    except (OSError, ValueError):
        pass  # never asked, or by another klab
    why = _kvm_fails()
    kept = _Kept(boot=boot, qemu=qemu, accelerated=not why, factor=slowness() if why else 1.0, why=why)
    write_atomic(file, json.dumps(asdict(kept), indent=2) + "\n")
    return kept


def _kvm_fails() -> str:
    """Why KVM does not run a guest; empty when it does."""
    if not KVM.exists():
        return f"{KVM} is missing: the processor or the BIOS does not offer virtualization"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return f"{KVM} may not be used by this user"
    try:
        run_guest("kvm", ROUNDS, KVM_SECONDS)
    except ProgramTimeout:
        return f"KVM did not run a small guest within {KVM_SECONDS:.0f} s, although {KVM} exists"
    except MachineError as error:
        return f"KVM does not run a guest: {'; '.join(error.details)}"
    return ""
