"""Images run without a runtime: their layers in a folder, their process in namespaces of its own. Needs root."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import process
from lab.boxes.images import Stored

# The first process of its PID namespace: all others end with it. Without a client it is the image's own.
_ENTER = """
set -eu
root=$1 client=$2; shift 2
ip link set lo up
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ -z "$client" ]; then exec "$@"; fi
"$@" >&2 &
until chroot "$root" /bin/sh -c "$client"; do kill -0 $!; sleep 0.3; done
"""


@dataclass(frozen=True)
class Container:
    """An image, unpacked into `root`; `config` is its configuration's part of that name."""

    root: Path
    config: Mapping[str, Any]

    @classmethod
    def unpacked(cls, layout: Path, image: Stored, root: Path) -> Container:
        """An image of an OCI layout in an empty folder, with what a runtime adds."""
        blobs = layout / "blobs" / "sha256"
        for layer in image.layers:
            process.run(["tar", "-xpf", blobs / layer, "-C", root, "--numeric-owner"], timeout=300)
        for name in ("proc", "dev", "sys", "tmp", "run"):
            (root / name).mkdir(exist_ok=True)
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        return cls(root, json.loads((blobs / image.config).read_text())["config"])

    def run(self, *args: str, command: Sequence[str] = (), env: Mapping[str, str] | None = None) -> str:
        """What a container prints: `command` of the pod for the entry point, `args` for the image's command."""
        return self._enter("", args, command, env or {}).stdout

    def serve(self, client: str, *args: str, command: Sequence[str] = (), env: Mapping[str, str] | None = None) -> str:
        """What a client, a line of shell, prints in the container as soon as it succeeds."""
        return self._enter(client, args, command, env or {}).stdout

    def _enter(
        self, client: str, args: Sequence[str], command: Sequence[str], env: Mapping[str, str]
    ) -> process.Completed:
        default = [] if args or command else self.config.get("Cmd", [])
        argv = [*(command or self.config.get("Entrypoint", [])), *default, *args]
        values = [*self.config["Env"], *(f"{name}={value}" for name, value in env.items())]
        folder = shlex.quote(self.config.get("WorkingDir", "/"))
        user = [f"--userspec={self.config['User']}"] if self.config.get("User") else []
        inside = ["env", "-i", *values, "/bin/sh", "-c", f'cd {folder} && exec "$@"', "sh", *argv]
        first = ["bash", "-c", _ENTER, "enter", str(self.root), client, "chroot", *user, str(self.root), *inside]
        apart = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
        return process.run([*apart, *first], timeout=60)
