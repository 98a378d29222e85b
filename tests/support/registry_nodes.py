"""Fake machines whose nodes have a registry: klab's scripts are run here, in folders that stand for the disks."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.components.runtime.base import NODE_REGISTRY_ROOT, NODE_REGISTRY_STORAGE
from lab.machines.fake.machines import FakeMachines
from lab.process import Completed
from lab.render.images import STAGING

PROGRAMS = ("systemctl", "ctr", "chown", "sudo")


class RegistryMachines(FakeMachines):
    """Machines with a registry each, below `disks`.

    `cut` is how many scripts more are run before a node no longer answers; `full`: its disk takes nothing.
    """

    disks: Path
    cut = 1 << 30
    full = False
    ran: list[tuple[str, str]]

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | Path | None = None
    ) -> Completed:
        done = super().ssh(node, command, timeout, check, stdin)
        script = stdin if isinstance(stdin, str) else command[-1]
        if "klab-images.lock" not in script:
            return done
        type(self).cut -= 1
        if self.cut < 0:
            return Completed(done.argv, 1, "", "the connection was closed\n")
        if self.full and isinstance(stdin, Path):
            return Completed(done.argv, 2, "", "tar: write error: No space left on device\n")
        self.ran.append((node, "receive" if isinstance(stdin, Path) else _kind(script)))
        return self._run(node, script, stdin if isinstance(stdin, Path) else None)

    def _run(self, node: str, script: str, file: Path | None) -> Completed:
        disk = self.disks / node
        programs = disk / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS:
            (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {disk}/programs\n')
            (programs / name).chmod(0o755)
        (disk / "run").mkdir(exist_ok=True)
        for place in (NODE_REGISTRY_STORAGE, STAGING, "/run/klab-images.lock", "/etc/containerd"):
            script = script.replace(place, f"{disk}{place}")
        env = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
        source = file.open("rb") if file else subprocess.DEVNULL
        made = subprocess.run(
            ["bash", "-c", script], stdin=source, capture_output=True, text=True, env=env, check=False
        )
        if file:
            source.close()  # type: ignore[union-attr]
        return Completed(("ssh",), made.returncode, made.stdout, made.stderr)


def _kind(script: str) -> str:
    if "echo lacks" in script or "echo free" in script:
        return "look"
    return "remove" if "restart docker-registry" in script else "place"


def machines(disks: Path, nodes: Sequence[str], **more: object) -> type[RegistryMachines]:
    """The class of such machines, whose nodes have an empty registry each."""
    for node in nodes:
        (disks / f"{node}{NODE_REGISTRY_ROOT}" / "repositories").mkdir(parents=True)
    return type("Machines", (RegistryMachines,), {"disks": disks, "ran": [], **more})


def storage(disks: Path, node: str) -> Path:
    """The folder that a registry of a node's would serve."""
    return disks / f"{node}{NODE_REGISTRY_STORAGE}"


def programs(disks: Path, node: str) -> list[str]:
    """What programs were called on a node, with their arguments."""
    file = disks / node / "programs"
    return file.read_text().splitlines() if file.exists() else []
