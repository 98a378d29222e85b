"""A folder that stands for a node in scripts that make Debian packages, run by this machine's shell and dpkg-deb."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from lab.components.kubernetes.packages import FOLDER, SOURCE_LIST

# Absolute paths of the node, where a word begins with one, but for what a package's own scripts look for when dpkg runs
# them; paths inside of a package stand behind the folder in which it is made.
PLACES = re.compile(r"(?<![\w}/.-])(?=/(?:usr|var|etc|run/klab)[/-])")
UNITS = "/usr/lib/systemd/system"


class DebianNode:
    """A node with programs, and the units that a box has for them.

    apt-get, dpkg, chown and systemctl do nothing but write themselves into `log`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[str] = []
        for folder in ("/etc/apt/sources.list.d", "/run", "/usr/bin", f"{UNITS}/kubelet.service.d"):
            self.path(folder).mkdir(parents=True)
        self.path(f"{UNITS}/kubelet.service").write_text("[Service]\n")
        self.path(f"{UNITS}/kubelet.service.d/10-kubeadm.conf").write_text("[Service]\n# drop-in\n")
        (root / "stand-ins").mkdir()
        for name in ("apt-get", "dpkg", "chown", "systemctl"):
            self.stand_in(name)

    def stand_in(self, name: str, then: str = "") -> None:
        """Let a program write its arguments into `log`, and do what a line of shell says."""
        file = self.root / "stand-ins" / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.root}/log"\n{then}\n')
        file.chmod(0o755)

    def path(self, place: str) -> Path:
        return self.root / place.removeprefix("/")

    @property
    def source_list(self) -> str:
        return self.path(SOURCE_LIST).read_text()

    @property
    def index(self) -> list[dict[str, str]]:
        """The fields of each package in apt's index."""
        text = (self.path(FOLDER) / "Packages").read_text()
        return [dict(line.split(": ", 1) for line in part.splitlines()) for part in text.strip().split("\n\n")]

    @property
    def packages(self) -> dict[str, Path]:
        return {path.name: path for path in sorted(self.path(FOLDER).glob("*.deb"))}

    def programs(self, folder: str, *names: str, text: str = "") -> None:
        """Put programs into a folder of the node."""
        self.path(folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            (self.path(folder) / name).write_text(f"#!/bin/sh\necho {name} {text}\n")
            (self.path(folder) / name).chmod(0o755)

    def run(self, script: str, *, epoch: int = 1_700_000_000) -> None:
        env = {**os.environ, "PATH": f"{self.root / 'stand-ins'}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": str(epoch)}
        text = PLACES.sub(str(self.root), script)
        done = subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        log = self.root / "log"
        self.log = log.read_text().replace(str(self.root), "").splitlines() if log.exists() else []


def content(package: Path) -> list[str]:
    """Mode, owner and name of everything in a package but folders."""
    listed = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in listed.splitlines()]
    return [f"{words[0]} {words[1]} {words[5]}" for words in lines if not words[0].startswith("d")]


def scripts_of(package: Path, folder: Path) -> dict[str, str]:
    """A package's control file and maintainer scripts, by name."""
    subprocess.run(["dpkg-deb", "-e", package, folder], check=True)
    return {file.name: file.read_text() for file in folder.iterdir()}
