"""QEMU with a slower clock, for hosts without hardware virtualization.

A guest that runs many times slower with its clocks at full speed spends itself on periodic
work and misses every time-out. Under libfaketime QEMU's clocks, and with them the guest's,
run at `rate`; see docs/decisions/0202-time-dilation.md.

All machines of a lab share one timeline, whenever each is started:

    guest time = epoch + (real time - epoch) * rate

libfaketime (0.9.10) takes an offset and a rate, counted from the start of the process, so
the wrapper computes the offset anew at each start. libvirt hands epoch and rate over in the
environment (`qemu:env`); without them, as when libvirt asks QEMU for its capabilities, the
wrapper is plain QEMU.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from lab import process
from lab.errors import HostError
from lab.store import Home, write_atomic

QEMU = "qemu-system-x86_64"
LIBRARY = "libfaketimeMT.so.1"
EPOCH_VARIABLE = "KLAB_EPOCH"
RATE_VARIABLE = "KLAB_RATE"

_WRAPPER = """#!/bin/sh
# Made by klab: QEMU under libfaketime, for hosts without hardware virtualization.
# {version}
if [ -n "${rate_variable}" ]; then
  offset=$(LC_ALL=C awk -v now="$(date +%s.%N)" -v epoch="${epoch_variable}" -v rate="${rate_variable}" \\
    'BEGIN {{ printf "%+.6f", (epoch - now) * (1 - rate) }}')
  export LD_PRELOAD={library} FAKETIME="$offset x${rate_variable}" NO_FAKE_STAT=1
fi
exec {qemu} "$@"
"""


def dilated_time(now: float, epoch: float, rate: float) -> float:
    """What the guests' clocks show when the host's show `now`; all in seconds since 1970."""
    return epoch + (now - epoch) * rate


def find_library() -> Path:
    """libfaketime's library for programs with threads.

    Raises:
        HostError: it is not installed.
    """
    triplet = f"{platform.machine()}-linux-gnu"
    for folder in (
        f"/usr/lib/{triplet}/faketime",
        "/usr/lib/faketime",
        "/usr/lib64/faketime",
        "/usr/local/lib/faketime",
    ):
        file = Path(folder) / LIBRARY
        if file.is_file():
            return file
    raise HostError(
        "libfaketime is not installed; without hardware virtualization klab runs guests with slower clocks",
        hint="sudo apt-get install faketime, or KLAB_DILATION=1 to do without",
    )


def write_wrapper(home: Home) -> Path:
    """Write the wrapper, unless it stands there already, and return its path.

    Raises:
        HostError: QEMU or libfaketime is missing, or libvirt's QEMU user cannot reach the file.
    """
    qemu = process.find(QEMU)
    version = process.run([qemu, "--version"], timeout=30).stdout.splitlines()[0]
    text = _WRAPPER.format(
        version=version,  # a new QEMU changes the file: libvirt then asks for its capabilities again
        library=find_library(),
        qemu=qemu,
        epoch_variable=EPOCH_VARIABLE,
        rate_variable=RATE_VARIABLE,
    )
    file = home.root / "bin" / "qemu-dilated"
    if not file.is_file() or file.read_text() != text:
        write_atomic(file, text, mode=0o755)
    return file


def check_reachable(file: Path) -> None:
    """Make sure that another user's process (libvirt's QEMU) can walk to a file.

    Raises:
        HostError: a folder on the way is closed.
    """
    closed = [str(folder) for folder in file.parents if not folder.stat().st_mode & 0o001]
    if closed:
        raise HostError(
            "libvirt's QEMU user cannot reach klab's emulator wrapper",
            details=[f"closed to others: {folder}" for folder in reversed(closed)],
            hint="set KLAB_HOME to a folder that others may walk through, or KLAB_DILATION=1 to do without",
        )


def wanted_rate(default: float) -> float:
    """The rate at which guests' clocks shall run: KLAB_DILATION where it is set.

    Raises:
        HostError: KLAB_DILATION is not a number above 0 and at most 1.
    """
    text = os.environ.get("KLAB_DILATION")
    if text is None:
        return default
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1:
        raise HostError(f"KLAB_DILATION is {text!r}; it must be a number above 0 and at most 1")
    return rate
