"""A guest of 512 bytes that tells whether, and how fast, QEMU runs a guest here.

It waits for timer interrupts, switches to long mode, does a fixed amount of work, and reports it in two ways, each
of which does nothing where QEMU lacks the device: through pvpanic, the one that libvirt tells of (source: QEMU,
docs/specs/pvpanic.rst), then through isa-debug-exit (hw/misc/debugexit.c: exit code = value * 2 + 1).
"""

from __future__ import annotations

import ctypes
import mmap
import tempfile
import time
from pathlib import Path

from lab import process
from lab.errors import MachineError, Remedy

QEMU = "qemu-system-x86_64"
GUEST_DONE = 33  # 0x10 * 2 + 1
ROUNDS = 20_000_000

# Real mode: three ticks of the BIOS clock (IRQ 0), then page tables at 0x1000, long mode,
# a stack, `call work`, `out 0x505, 1`, `out 0xf4, 0x10`. Ends with the GDT; `work` follows at offset 190.
_START = bytes.fromhex(
    "fa31c08ed88ec08ed0bc0070fbb903008b1e6c043b1e6c0474fae2f4fabf001089f96631c0bf0010b9000c66f3ab66c7"
    "0600100320000066c70600200330000066c70600308300000066b8001000000f22d80f20e06683c8200f22e066b98000"
    "00c00f32660d000100000f300f0116b87c0f20c0660d010000800f22c0ea827c080066b810008ed88ed0bc00700000e8"
    "2a00000066ba0505b001eeb010e6f4f40000000000000000ffff0000009aaf00ffff00000092cf001700a07c0000"
)
# mov ecx, rounds; 1: call 2f; mov [rsp-64], rax; add rdx, [rsp-64]; xor rax, rdx; test cl, 7;
# jnz 3f; rol rax, 5; 3: dec ecx; jnz 1b; ret; 2: imul rax, rax, 0x5bd1e995; push rax; pop rdx; ret
_WORK = bytes.fromhex("b944332211e81b00000048894424c048035424c04831d0f6c107750448c1c005ffc975e1c34869c095e9d15b505ac3")
_ROUNDS_AT = 1  # where in _WORK the number of rounds is


def _work(rounds: int) -> bytes:
    return _WORK[:_ROUNDS_AT] + rounds.to_bytes(4, "little") + _WORK[_ROUNDS_AT + 4 :]


def boot_sector(rounds: int) -> bytes:
    """The guest: 512 bytes, for the start of a disk. Behind AHCI or virtio the BIOS wants one of 1 MiB or more."""
    return (_START + _work(rounds)).ljust(510, b"\0") + b"\x55\xaa"


def run_guest(accelerator: str, rounds: int, limit: float) -> float:
    """Boot the guest and return the seconds until it said that it was done.

    Args:
        accelerator: QEMU's: `kvm` or `tcg`.
        rounds: how often it does its work.
        limit: seconds that it may take.

    Raises:
        ProgramTimeout: it took longer.
        MachineError: it ended in another way.
    """
    with tempfile.TemporaryDirectory(prefix="klab-probe-") as folder:
        disk = Path(folder) / "disk"
        disk.write_bytes(boot_sector(rounds))
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
        raise MachineError(
            f"the probe guest ended with exit code {done.code}",
            details=done.tail,
            hint=(Remedy("doctor"), " shows what this machine lacks"),
        )
    return time.monotonic() - began


def run_here(rounds: int) -> float:
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
