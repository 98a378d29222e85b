"""Does hardware virtualization really run a guest here, and how slow are guests otherwise?

The presence of /dev/kvm says little: there are hosts on which KVM answers every question
and runs each guest instruction by instruction, so that a kernel never comes up. So klab
boots a guest of 512 bytes under a time limit. It waits for timer interrupts, switches to
long mode, does a fixed amount of work, and says so through QEMU's isa-debug-exit device
(source: QEMU, hw/misc/debugexit.c: exit code = value * 2 + 1).

Where KVM does not manage that, the same guest under emulation, against the same work done
natively, gives the factor by which guests are slower. It is rough: real guests also
wait for devices. The answer is kept in host.json until the host boots anew or QEMU changes.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import process, records
from lab.errors import HostError, MachineError, ProgramTimeout
from lab.host.emulation.emulator import QEMU, find_compiler, wanted_rate
from lab.host.profile import HostProfile
from lab.store import Home, write_atomic

# Time dilation 0.3 lets stock kubeadm time-outs hold on a host about 15 times slower; measured,
# see docs/decisions/0202-time-dilation.md.
DILATION = 0.3
# ... for so many virtual CPUs on each core: three nodes of two CPUs on two cores.
CPUS_PER_CORE = 3
KVM = Path("/dev/kvm")
# Hardware takes less than half a second for all of it, BIOS included.
KVM_SECONDS = 10.0
EMULATED_SECONDS = 60.0
GUEST_DONE = 33  # 0x10 * 2 + 1
ROUNDS = 20_000_000

# Real mode: three ticks of the BIOS clock (IRQ 0), then page tables at 0x1000, long mode,
# a stack, `call work`, `out 0xf4, 0x10`. Ends with the GDT; `work` follows at offset 190.
_START = bytes.fromhex(
    "fa31c08ed88ec08ed0bc0070fbb903008b1e6c043b1e6c0474fae2f4fabf001089f96631c0bf0010b9000c66f3ab66c7"
    "0600100320000066c70600200330000066c70600308300000066b8001000000f22d80f20e06683c8200f22e066b98000"
    "00c00f32660d000100000f300f0116b87c0f20c0660d010000800f22c0ea827c080066b810008ed88ed0bc00700000e8"
    "2a000000b010e6f4f48db426000000000000000000000000ffff0000009aaf00ffff00000092cf001700a07c0000"
)
# mov ecx, rounds; 1: call 2f; mov [rsp-64], rax; add rdx, [rsp-64]; xor rax, rdx; test cl, 7;
# jnz 3f; rol rax, 5; 3: dec ecx; jnz 1b; ret; 2: imul rax, rax, 0x5bd1e995; push rax; pop rdx; ret
_WORK = bytes.fromhex("b944332211e81b00000048894424c048035424c04831d0f6c107750448c1c005ffc975e1c34869c095e9d15b505ac3")
_ROUNDS_AT = 1  # where in _WORK the number of rounds stands


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
        cpus: virtual CPUs of the lab that is to run; many on few cores get slower clocks still.

    Raises:
        HostError: QEMU is missing, or it cannot run a guest in any way; or KVM does not work and
            the compiler, which klab then uses, is missing.
    """
    kept = _kept(home)
    if kept.accelerated:
        return HostProfile(accelerated=True, factor=1.0, dilation=wanted_rate(1.0))
    rate = wanted_rate(pace(cpus, len(os.sched_getaffinity(0))))
    if rate != 1.0:
        find_compiler()
    return HostProfile(accelerated=False, factor=kept.factor, dilation=rate)


def pace(cpus: int, cores: int) -> float:
    """The rate of guests' clocks without hardware virtualization, for so many virtual CPUs on so many cores.

    The more virtual CPUs, the more work a cluster does in the same time of its guests, and the smaller the share
    of the cores that each of them gets: so the rate falls with the square of the share.
    """
    share = min(1.0, CPUS_PER_CORE * cores / max(cpus, 1))
    return round(DILATION * share**2, 2)


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
    kept = _Kept(boot=boot, qemu=qemu, accelerated=not why, factor=_slowness() if why else 1.0, why=why)
    write_atomic(file, json.dumps(asdict(kept), indent=2) + "\n")
    return kept


def _kvm_fails() -> str:
    """Why KVM does not run a guest; empty when it does."""
    if not KVM.exists():
        return f"{KVM} is missing: the processor or the BIOS does not offer virtualization"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return f"{KVM} may not be used by this user"
    try:
        _run_guest("kvm", ROUNDS, KVM_SECONDS)
    except ProgramTimeout:
        return f"KVM did not run a small guest within {KVM_SECONDS:.0f} s, although {KVM} exists"
    except MachineError as error:
        return f"KVM does not run a guest: {'; '.join(error.details)}"
    return ""


def _slowness() -> float:
    """How many times longer the work takes under emulation than natively."""
    try:
        empty = _run_guest("tcg", 1, EMULATED_SECONDS)
        full = _run_guest("tcg", ROUNDS, EMULATED_SECONDS)
    except (ProgramTimeout, MachineError) as error:
        raise HostError(
            "QEMU does not run a guest here",
            details=[error.message, *error.details],
            hint="klab doctor tells what this machine lacks",
        ) from error
    return round(max(1.0, (full - empty) / _run_here(ROUNDS)), 1)


def _work(rounds: int) -> bytes:
    return _WORK[:_ROUNDS_AT] + rounds.to_bytes(4, "little") + _WORK[_ROUNDS_AT + 4 :]


def _run_guest(accelerator: str, rounds: int, limit: float) -> float:
    """Boot the guest and return the seconds until it said that it was done."""
    sector = (_START + _work(rounds)).ljust(510, b"\0") + b"\x55\xaa"
    with tempfile.TemporaryDirectory(prefix="klab-probe-") as folder:
        disk = Path(folder) / "disk"
        disk.write_bytes(sector)
        began = time.monotonic()
        done = process.run(
            [
                *(QEMU, "-accel", accelerator, "-cpu", "max", "-m", "16", "-display", "none"),
                *("-nodefaults", "-no-user-config", "-drive", f"file={disk},format=raw,if=ide"),
                *("-device", "isa-debug-exit,iobase=0xf4,iosize=1"),
            ],
            timeout=limit,
            check=False,
        )
    if done.code != GUEST_DONE:
        raise MachineError(f"the probe guest ended with exit code {done.code}", details=done.tail)
    return time.monotonic() - began


def _run_here(rounds: int) -> float:
    """Do the guest's work natively, by the very same instructions, and return the seconds it took."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_work(rounds))
        view = ctypes.c_char.from_buffer(page)
        # The instructions use only registers and stack that a C function may use (System V ABI, AMD64).
        function = ctypes.CFUNCTYPE(None)(ctypes.addressof(view))
        began = time.perf_counter()
        function()
        seconds = time.perf_counter() - began
        del view, function
    return seconds
