"""What of the host a lab could leave behind: looked at before and after.

Other tests and other people's labs may run meanwhile. Processes are therefore those of one KLAB_HOME alone. Links,
namespaces, mounts and rules tell nobody whose they are, so all that the host has count; no test of klab's makes one
but in namespaces of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import process

# What may follow a path that is meant itself, or something in it: no letter of a longer name.
END = rb"(?![\w.-])"


@dataclass(frozen=True)
class HostView:
    """The processes of one KLAB_HOME; all network links, namespaces, mounts and firewall rules."""

    processes: tuple[str, ...]
    links: tuple[str, ...]
    namespaces: tuple[str, ...]
    mounts: tuple[str, ...]
    rules: str


def look_at_host(home: Path) -> HostView:
    """The host as it is now.

    Args:
        home: the KLAB_HOME whose processes count.
    """
    return HostView(
        processes=tuple(processes_of(home)),
        links=tuple(sorted(p.name for p in Path("/sys/class/net").iterdir())),
        namespaces=tuple(sorted(p.name for p in Path("/run/netns").iterdir())) if Path("/run/netns").is_dir() else (),
        mounts=tuple(sorted(" ".join(line.split()[:2]) for line in Path("/proc/mounts").read_text().splitlines())),
        rules=subprocess.run(
            [process.find("nft"), "list", "ruleset"], capture_output=True, text=True, check=False
        ).stdout
        if os.geteuid() == 0
        else "",
    )


def processes_of(home: Path) -> list[str]:
    """Those that a klab of this home has started, whoever their parent is by now: as PID and command line.

    klab and what it starts name the home in their arguments or their environment. What the private libvirt
    starts (QEMU, dnsmasq) does not, but sees folders of the home in place of the host's.
    """
    named = re.compile(re.escape(os.fsencode(home)) + END)
    bound = re.compile(rb"^(?:\S+ ){3}" + re.escape(_as_source(home / "realm")) + END, re.MULTILINE)
    found = []
    for entry in Path("/proc").iterdir():
        # This process works for the home, too; what it leaves behind are others.
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        words, variables, mounts = (_read(entry / name) for name in ("cmdline", "environ", "mountinfo"))
        if named.search(words) or named.search(variables) or bound.search(mounts):
            found.append(f"{entry.name} {words.replace(bytes(1), b' ').decode(errors='replace').strip()}")
    return sorted(found)


def _read(file: Path) -> bytes:
    """What the kernel says of a process; nothing of one that has ended or is somebody else's."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _as_source(folder: Path) -> bytes:
    """A folder as mountinfo names it where it is bound elsewhere: by its path in its file system.

    Source: proc_pid_mountinfo(5), fields 4 and 5.
    """
    real = folder.resolve()
    fields = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # The last of those at the same place covers the others.
    mount = max(reversed(fields), key=lambda each: len(each[4]) if real.is_relative_to(each[4]) else 0)
    return os.fsencode(Path(mount[3]) / real.relative_to(mount[4])).replace(b" ", rb"\040")
