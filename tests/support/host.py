"""What of the host a lab could leave behind: looked at before and after."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab import process

PROGRAMS = ("qemu-system-x86_64", "libvirtd", "virtlogd", "dnsmasq", "vagrant")
ANCHOR = [b"sleep", b"infinity"]  # what holds a private libvirt's namespaces


@dataclass(frozen=True)
class HostView:
    """Programs of the kinds a lab starts, network links, namespaces, mounts and firewall rules."""

    processes: tuple[str, ...]
    links: tuple[str, ...]
    namespaces: tuple[str, ...]
    mounts: tuple[str, ...]
    rules: str


def look_at_host() -> HostView:
    """The host as it is now."""
    return HostView(
        processes=tuple(sorted(_processes())),
        links=tuple(sorted(p.name for p in Path("/sys/class/net").iterdir())),
        namespaces=tuple(sorted(p.name for p in Path("/run/netns").iterdir())) if Path("/run/netns").is_dir() else (),
        mounts=tuple(sorted(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())),
        rules=subprocess.run(
            [process.find("nft"), "list", "ruleset"], capture_output=True, text=True, check=False
        ).stdout
        if os.geteuid() == 0
        else "",
    )


def _processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == ANCHOR or Path(words[0].decode(errors="replace")).name in PROGRAMS:
            found.append(f"{entry.name} {words[0].decode(errors='replace')}")
    return found
