"""Starts a daemon, and stays to reap whatever processes it leaves behind, until there are none.

libvirtd lets go of each QEMU at its start; when that ends, it is for the first process of the
machine to reap it. In a container that is often a program which does not, or only now and then.
libvirt takes an unreaped QEMU for one that still runs: it waits for seconds, or gives up.

Run as a file of its own; it imports nothing of klab's:

    python -I reaper.py PROGRAM ARGUMENT...

It ends with the exit code of PROGRAM, which goes into the background by itself; what stays is a
process called `klab-reaper`.

Source: prctl(2), PR_SET_CHILD_SUBREAPER; libvirt, src/util/virprocess.c, virProcessKillPainfullyDelay.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Sequence

NAME = "klab-reaper"
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
CANNOT_RUN = 126
CONFINEMENT = "/proc/thread-self/attr/apparmor/exec"  # there with AppArmor alone


def main(words: Sequence[str]) -> int:
    """Start the daemon; returns its exit code, in a process that has nothing more to do."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.close(ours)
        _stay(words, theirs)
        os._exit(0)
    os.close(theirs)
    told = os.read(ours, 1)
    return told[0] if told else CANNOT_RUN


def _stay(words: Sequence[str], told: int) -> None:
    """Start the daemon, tell its exit code as one byte, and reap until no child is left."""
    os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_NAME, NAME.encode(), 0, 0, 0)
    daemon = os.fork()
    if daemon == 0:
        try:
            _leave_apparmor(CONFINEMENT)
            os.execv(words[0], list(words))  # noqa: S606 - no shell is what is wanted
        finally:
            os._exit(CANNOT_RUN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return
        if pid == daemon:
            os.write(told, bytes([os.waitstatus_to_exitcode(status) & 0xFF]))
            os.close(told)


def _leave_apparmor(file: str) -> None:
    """Let what this process executes next run unconfined, where there is AppArmor.

    Its profile of libvirtd goes by the program's path, and means one whose guests are confined in turn: any other QEMU
    that libvirtd starts loses LD_PRELOAD, and with it the slower clock of emulated guests.
    Source: apparmor, profile usr.sbin.libvirtd, `/usr/bin/* PUx`; aa_change_onexec(2).
    """
    with contextlib.suppress(OSError), open(file, "w") as exec_attribute:  # noqa: PTH123 - nothing is imported late
        exec_attribute.write("exec unconfined")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
