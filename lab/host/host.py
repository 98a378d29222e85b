"""A machine that can run labs: this one, or another over ssh.

Everything klab asks of a machine goes through `Host`: to run a program, what is in its files, how much memory and
disk are free, where klab keeps its labs there, how its libvirt is addressed, and how a node of a lab is reached.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import PurePath
from typing import Protocol

from lab.errors import Advice
from lab.process import Completed


class Host(Protocol):
    """A machine that can run labs."""

    @property
    def name(self) -> str:
        """What a person calls it, for messages."""
        ...

    @property
    def home(self) -> PurePath:
        """KLAB_HOME there, an absolute path.

        Raises:
            HostError: the host does not answer.
        """
        ...

    @property
    def libvirt_uri(self) -> str:
        """The connection URI of its system libvirtd (libvirt.org/uri.html)."""
        ...

    def run(
        self, argv: Sequence[str], *, timeout: float, check: bool = True, stdin: str | None = None, hint: Advice = ""
    ) -> Completed:
        """Run a program there; as `lab.process.run`.

        Raises:
            HostError: the program is not installed, or the host does not answer.
            ProgramError: it failed and `check` was set.
            ProgramTimeout: it did not end in time.
        """
        ...

    def read(self, path: str) -> str:
        """The text of a file there.

        Raises:
            HostError: it cannot be read, or the host does not answer.
        """
        ...

    def cpus(self) -> int:
        """How many CPUs programs may use."""
        ...

    def disk_free(self, folder: PurePath) -> tuple[PurePath, int]:
        """The nearest existing folder at or above `folder`, and how many bytes a user may still write there."""
        ...

    def connect(self, lab: str, node: str, port: int) -> socket.socket:
        """A TCP connection to a node of a lab there, wherever the lab's network is.

        Raises:
            LabError: there is no such lab or node, the host does not answer, or nothing listens at the node; where
                the host is another one, the connection ends at once instead.
        """
        ...
