"""QEMU with a slower clock, for hosts without hardware virtualization.

A guest that runs many times slower with its clocks at full speed spends itself on periodic
work and misses every time-out. A small library (slow_clock.c), preloaded into QEMU, makes
its clocks, and with them the guest's, run at `rate`; see docs/decisions/0202-time-dilation.md.

All machines of a lab share one timeline, whenever each is started:

    guest time = epoch + (real time - epoch) * rate

libvirt hands epoch and rate over in the environment (`qemu:env`); without them, as when
libvirt asks QEMU for its capabilities, the wrapper is plain QEMU.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from lab import process
from lab.errors import HostError
from lab.files import make_private, write_atomic
from lab.host.probe_guest import QEMU
from lab.render.emulation import RATE_VARIABLE
from lab.store import Home

COMPILER = "gcc"
LIBRARY = Path(__file__).with_name("slow_clock.c")
COMPILE_SECONDS = 120.0

_WRAPPER = """#!/bin/sh
# Made by klab: QEMU with slower clocks, for hosts without hardware virtualization.
# {version}
if [ -n "${rate_variable}" ]; then
  export LD_PRELOAD={library}
fi
exec {qemu} "$@"
"""


def find_compiler() -> str:
    """The C compiler that makes the slow clock.

    Raises:
        HostError: it is not installed.
    """
    try:
        return process.find(COMPILER)
    except HostError as error:
        raise HostError(
            f"{error.message}; without hardware virtualization klab compiles a slower clock for guests",
            hint=f"{error.hint}, or KLAB_DILATION=1 to do without",
        ) from error


def write_library(home: Home) -> Path:
    """Compile the slow clock, unless it has been, and return the library's path.

    Raises:
        HostError: there is no compiler, or the library cannot be preloaded from klab's home.
        ProgramError: it does not compile.
    """
    digest = hashlib.sha256(LIBRARY.read_bytes()).hexdigest()[:12]
    file = home.root / "bin" / f"slow_clock-{digest}.so"
    # ld.so(8), LD_PRELOAD and "Dynamic string tokens".
    if any(character in str(file) for character in " :$"):
        raise HostError(
            f"the dynamic loader cannot preload a library from {str(file.parent)!r}: "
            "a blank or a colon ends the name, and a dollar sign begins a token of its own",
            hint="set KLAB_HOME to a folder without them, or KLAB_DILATION=1 to do without slower clocks",
        )
    if not file.is_file():
        compiler = find_compiler()
        make_private(file.parent)
        draft = file.with_suffix(f".{os.getpid()}")
        try:
            process.run(
                [compiler, "-O2", "-shared", "-fPIC", "-o", draft, "-x", "c", LIBRARY, "-lm"], timeout=COMPILE_SECONDS
            )
            draft.chmod(0o755)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
    return file


def write_wrapper(home: Home) -> Path:
    """Write the wrapper, unless it is there already, and return its path.

    Raises:
        HostError: QEMU or the compiler is missing, or klab's home cannot hold the library.
    """
    qemu = process.find(QEMU)
    version = process.run([qemu, "--version"], timeout=30).stdout.splitlines()[0]
    text = _WRAPPER.format(
        version=version,  # a new QEMU changes the file: libvirt then asks for its capabilities again
        library=shlex.quote(str(write_library(home))),
        qemu=shlex.quote(qemu),
        rate_variable=RATE_VARIABLE,
    )
    file = home.root / "bin" / "qemu-dilated"
    if not file.is_file() or file.read_text() != text:
        write_atomic(file, text, mode=0o755)
    return file


def check_reachable(file: Path, home: Home) -> None:
    """Make sure that another user's process (libvirt's QEMU) can walk to a file.

    klab's own folder is opened so far that others may walk through it, and not list it; the labs in it are closed.

    Raises:
        HostError: a folder on the way is closed.
    """
    make_private(home.labs)
    home.labs.chmod(0o700)
    for folder, mode in ((home.root, 0o711), (file.parent, 0o755)):
        folder.chmod(folder.stat().st_mode | mode)
    closed = [str(folder) for folder in file.parents if not folder.stat().st_mode & 0o001]
    if closed:
        raise HostError(
            "libvirt's QEMU user cannot reach klab's emulator wrapper",
            details=[f"closed to others: {folder}" for folder in reversed(closed)],
            hint="set KLAB_HOME to a folder that others may walk through, or KLAB_DILATION=1 to do without",
        )
