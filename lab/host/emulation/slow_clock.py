"""Slower clocks for QEMU, for hosts without hardware virtualization.

A guest that runs many times slower with its clocks at full speed spends itself on periodic
work and misses every time-out. A small library (slow_clock.c), preloaded into QEMU, makes
its clocks, and with them the guest's, run at `rate`; see docs/decisions/0202-time-dilation.md.

All machines of a lab share one timeline, whenever each is started:

    guest time = epoch + (real time - epoch) * rate

libvirt hands the library, epoch and rate over in the environment (`qemu:env`). The library lies where a QEMU of
another user's finds it and AppArmor lets it be mapped (abstractions/base, which libvirt's profile of a guest includes).
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from lab import process
from lab.errors import HostError
from lab.files import make_private
from lab.store import Home

COMPILER = "gcc"
SOURCE = Path(__file__).with_name("slow_clock.c")
FOLDER = Path("/usr/lib/klab")
COMPILE_SECONDS = 120.0
WITHOUT = "KLAB_DILATION=1 does without slower clocks"


def installed() -> Path:
    """Where the library belongs. The name follows from what it is made of: one klab leaves another's alone."""
    return FOLDER / f"slow_clock-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}.so"


def ensure_library(home: Home) -> Path:
    """The library where QEMU finds it. Root installs it; anybody else makes it ready, and is told how to install it.

    Raises:
        HostError: it is not installed, and only root may do that; or there is no compiler.
        ProgramError: it does not compile.
    """
    library = installed()
    if library.is_file():
        return library
    if os.geteuid() == 0:
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            compile_library(library)
        except OSError as error:
            raise HostError(
                "the slower clock for emulated guests cannot be installed",
                details=[f"{library}: {error.strerror}"],
                hint=WITHOUT,
            ) from error
        return library
    raise HostError(
        "the slower clock for emulated guests is not installed",
        details=[f"libvirt's QEMU loads it from {library}"],
        hint=f"{install_command(home)}; or {WITHOUT}",
    )


def install_command(home: Home) -> str:
    """The command, for a person who may use sudo, that installs the library; it is compiled for that.

    Raises:
        HostError: there is no compiler.
        ProgramError: it does not compile.
    """
    return shlex.join(["sudo", "install", "-D", "-m", "644", str(compiled(home)), str(installed())])


def compiled(home: Home) -> Path:
    """The library in klab's home, from where it can be installed.

    Raises:
        HostError: there is no compiler.
        ProgramError: it does not compile.
    """
    file = home.root / "bin" / installed().name
    if not file.is_file():
        make_private(file.parent)
        compile_library(file)
    return file


def compile_library(file: Path) -> None:
    """Make the library; it is there whole or not at all.

    Raises:
        HostError: there is no compiler.
        ProgramError: it does not compile.
        OSError: it cannot be written.
    """
    compiler = find_compiler()
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        process.run(
            [compiler, "-O2", "-shared", "-fPIC", "-o", draft, "-x", "c", SOURCE, "-lm"], timeout=COMPILE_SECONDS
        )
        draft.chmod(0o644)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def find_compiler() -> str:
    """The C compiler that makes the library.

    Raises:
        HostError: it is not installed.
    """
    try:
        return process.find(COMPILER)
    except HostError as error:
        raise HostError(
            f"{error.message}; without hardware virtualization klab compiles a slower clock for guests",
            hint=f"{error.hint}; or {WITHOUT}",
        ) from error
