"""This machine as a host of labs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from lab import process
from lab.errors import Advice, HostError, MachineError, Remedy
from lab.plan.file import from_json
from lab.plan.model import Node
from lab.process import Completed
from lab.store import Home

LIBVIRT_URI = "qemu:///system"
CONNECT_SECONDS = 30.0
SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class LocalHost:
    """See `lab.host.host.Host`. Its network is the one that the calling thread is in."""

    labs: Home

    @property
    def name(self) -> str:
        return "this machine"

    @property
    def home(self) -> Path:
        return self.labs.root

    @property
    def libvirt_uri(self) -> str:
        return LIBVIRT_URI

    def run(
        self, argv: Sequence[str], *, timeout: float, check: bool = True, stdin: str | None = None, hint: Advice = ""
    ) -> Completed:
        return process.run(argv, timeout=timeout, check=check, stdin=stdin, hint=hint)

    def read(self, path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise HostError(
                f"{path} cannot be read", details=[error.strerror or str(error)], hint=f"ls -l {path}"
            ) from error

    def connect(self, lab: str, node: str, port: int) -> socket.socket:
        from lab.host.network import host_network  # late: `klab plan` needs none of it

        folder = self.labs.pick(lab)
        place = from_json(folder.plan_text()).known(node)
        with host_network(self.labs):
            return connect(folder.name, place, port)

    def cpus(self) -> int:
        return len(os.sched_getaffinity(0))

    def disk_free(self, folder: PurePath) -> tuple[Path, int]:
        return free_at(Path(folder))


def free_at(folder: Path) -> tuple[Path, int]:
    """The nearest folder at or above `folder` that exists and may be looked at, and how many bytes are free there."""
    for there in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            stat = os.statvfs(there)
            return there, stat.f_bavail * stat.f_frsize
    return folder, 0


def connect(lab: str, node: Node, port: int) -> socket.socket:
    """A TCP connection to a node, from the network that the calling thread is in.

    Raises:
        MachineError: nothing listens there, or the node does not answer.
    """
    try:
        channel = socket.create_connection((str(node.address), port), timeout=CONNECT_SECONDS)
    except ConnectionRefusedError as error:
        listening = ("--", "sudo", "ss", "-tlnp")
        hint = (Remedy("ssh", lab=lab, node=node.name, options=listening), " shows what listens there")
        if port == SSH_PORT:
            hint = (Remedy("logs", lab=lab, node=node.name), " shows whether it is still starting")
        raise MachineError(
            f"{node.name} refuses connections to port {port}",
            details=[f"{node.address} port {port}: {error.strerror}"],
            hint=hint,
        ) from error
    except OSError as error:
        raise MachineError(
            f"{node.name} does not answer on port {port}",
            details=[f"{node.address} port {port}: {error.strerror or error}"],
            hint=(Remedy("status", lab=lab), " shows whether it runs"),
        ) from error
    channel.settimeout(None)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # What is typed shall not wait for more of it.
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return channel
