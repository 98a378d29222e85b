"""ssh to a lab's nodes: user vagrant, the lab's key, host keys kept in the lab's folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from lab import process
from lab.errors import MachineError, ProgramTimeout, Remedy
from lab.files import write_atomic
from lab.plan.model import Plan
from lab.plan.names import USER
from lab.process import Completed
from lab.store import LabFolder

CONNECT_SECONDS = 30
UNREACHABLE = 255  # ssh's own failures; see ssh(1), EXIT STATUS


class Ssh:
    """ssh into one lab."""

    def __init__(self, folder: LabFolder, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan

    def argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        """The command line that reaches a node.

        Raises:
            NotFound: the lab has no such node.
        """
        return ["ssh", *self._options(node, interactive=True), *_remote(command)]

    def run(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | Path | None = None
    ) -> Completed:
        """Run a command on a node; see `Machines.ssh`."""
        done = process.run(
            ["ssh", *self._options(node, interactive=False), *_remote(command)],
            timeout=timeout,
            check=False,
            stdin=stdin,
        )
        if done.code == UNREACHABLE:
            raise MachineError(
                f"{node} does not answer ssh",
                details=done.tail,
                hint=(Remedy("logs", node=node), " shows its console, ", Remedy("status"), " whether it runs"),
            )
        if check and done.code != 0:
            raise process.failed(done)
        return done

    def host_keys(self, node: str) -> str:
        """The lines of known_hosts that are about a node; see sshd(8). Empty where it is not known yet."""
        return "".join(line for line in self._known() if self._is_about(line, node))

    def bare_host_keys(self, lines: str) -> str:
        """Lines of known_hosts without whom they are about, so that another lab can know a node by them."""
        return "".join(line.partition(" ")[2] for line in lines.splitlines(keepends=True))

    def know_by(self, node: str, bare: str) -> None:
        """Let a node be known by host keys of which `bare_host_keys` has left out the names."""
        self.know(node, "".join(f"{self._alias(node)} {line}" for line in bare.splitlines(keepends=True)))

    def know(self, node: str, lines: str) -> None:
        """Let a node be known by these lines alone: part of what goes back with its disk."""
        old = self._known()
        new = [line for line in old if not self._is_about(line, node)] + lines.splitlines(keepends=True)
        if sorted(new) != sorted(old):
            write_atomic(self._known_hosts, "".join(new), mode=0o600)

    def forget_host_key(self, node: str) -> None:
        """Forget by which key a node is known: a machine that is made again makes keys of its own."""
        self.know(node, "")

    def _known(self) -> list[str]:
        file = self._known_hosts
        return file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if file.is_file() else []

    def _is_about(self, line: str, node: str) -> bool:
        return line.partition(" ")[0] == self._alias(node)

    @property
    def _known_hosts(self) -> Path:
        return self._folder.known_hosts

    def _alias(self, node: str) -> str:
        return f"{self._plan.name}-{node}"

    def answers(self, node: str, timeout: float) -> bool:
        """Whether a node lets klab in."""
        try:
            return self.run(node, ["true"], timeout=timeout, check=False).code == 0
        except (MachineError, ProgramTimeout):
            return False

    def settings(self, node: str) -> dict[str, str]:
        """What ssh must know to reach a node: the names of ssh_config(5), the values quoted as it wants them.

        Raises:
            NotFound: the lab has no such node.
        """
        return {
            "HostName": str(self._plan.known(node).address),
            "User": USER,
            "IdentityFile": _quoted(self._folder.ssh_key),
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": _quoted(self._known_hosts),
            # By name, not address: labs take turns at the same addresses.
            "HostKeyAlias": self._alias(node),
            "ConnectTimeout": str(CONNECT_SECONDS),
            "LogLevel": "ERROR",
        }

    def _options(self, node: str, *, interactive: bool) -> list[str]:
        settings = self.settings(node)
        target = f"{settings.pop('User')}@{settings.pop('HostName')}"
        if not interactive:
            settings["BatchMode"] = "yes"
        # -F none: a person's own ssh_config (proxies, users) is for other hosts.
        words = ["-F", "none"]
        for name, value in settings.items():
            words += ["-o", f"{name}={value}"]
        return [*words, target]


def _quoted(path: object) -> str:
    # ssh splits a path at blanks, takes quotes and backslashes away, and expands what follows a percent sign.
    text = str(path)
    for character, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%")):
        text = text.replace(character, written)
    return f'"{text}"'


def _remote(command: Sequence[str]) -> list[str]:
    """A command as one word that the login shell takes apart again into just these arguments."""
    return ["--", shlex.join(command)] if command else []
