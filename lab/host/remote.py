"""Another machine that can run labs, over ssh, with klab installed on it.

ssh does what it does for a person: names, users, keys and jumps come from ssh_config(5). One connection serves all
questions (ControlMaster), and klab never asks for a password.
"""

from __future__ import annotations

import functools
import os
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from lab import process
from lab.errors import Advice, HostError, ProgramTimeout
from lab.packages import PACKAGES
from lab.process import Completed
from lab.text import shortened, visible

UNREACHABLE = 255  # ssh's own failures; see ssh(1), EXIT STATUS
TIMED_OUT, KILLED = 124, 137  # timeout(1), EXIT STATUS; a program may end with them by itself, too
ASK_SECONDS = 30.0
CONNECT_SECONDS = 20
PERSIST_SECONDS = 60
KILL_SECONDS = 10  # from SIGTERM to SIGKILL
LEAST_SECONDS = 0.1  # timeout(1) takes 0 for no limit
# %C is a digest of host, port and user; ssh adds 17 characters until the socket is ready (mux.c). unix(7) allows 107.
MOST_IN_FOLDER = 107 - len("/") - 40 - 17
_NOT_FOUND = 127  # a shell's exit code for a program that is not there
# Half of what klab runs lives in sbin, which an ordinary user's shell leaves out.
_WITH_SBIN = 'PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH; exec "$@"'
_HOME = 'printf %s "${KLAB_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/klab}"'
# Up to the first folder that exists.
_FREE = 'd=$1; while [ ! -d "$d" ]; do d=$(dirname "$d"); done; printf "%s\\n" "$d"; stat -f -c "%a %S" "$d"'


class SshHost:
    """See `lab.host.host.Host`.

    Args:
        target: as ssh takes it: a name of ssh_config(5), or user@address.
        klab: the program klab there.
        options: settings of ssh_config(5) beyond a person's own, by name.
        sockets: the folder for the connection that all questions share; private to this user. Where its path is too
            long for a socket, each question makes a connection of its own.
    """

    def __init__(
        self,
        target: str,
        *,
        klab: str = "klab",
        options: Mapping[str, str] = MappingProxyType({}),
        sockets: Path | None = None,
    ) -> None:
        if target.startswith("-") or not target:
            raise HostError(f"{target!r} is not the name of a host", hint="write it as for ssh: user@address")
        self._target = target
        self._klab = klab
        self._options = dict(options)
        if sockets is not None and len(os.fsencode(sockets)) <= MOST_IN_FOLDER:
            path = f"{sockets}".replace("%", "%%")
            self._options |= {
                "ControlMaster": "auto",
                "ControlPath": f'"{path}/%C"',
                "ControlPersist": str(PERSIST_SECONDS),
            }

    @property
    def name(self) -> str:
        return self._target

    @functools.cached_property
    def home(self) -> PurePosixPath:
        shown = self.run(["sh", "-c", _HOME], timeout=ASK_SECONDS).stdout
        if not shown.startswith("/") or "\n" in shown:
            raise self._strange(shown)
        return PurePosixPath(shown)

    @property
    def libvirt_uri(self) -> str:
        return f"qemu+ssh://{self._target}/system"

    def run(
        self, argv: Sequence[str], *, timeout: float, check: bool = True, stdin: str | None = None, hint: Advice = ""
    ) -> Completed:
        # timeout(1) there ends the program; the ssh here is given somewhat longer, to tell of it.
        limit = max(timeout, LEAST_SECONDS)
        words = ["timeout", "-k", str(KILL_SECONDS), f"{limit:g}", "sh", "-c", _WITH_SBIN, "sh", *argv]
        began = time.monotonic()
        patience = limit + KILL_SECONDS + 2 * CONNECT_SECONDS
        there = process.run(self._ssh(words), timeout=patience, check=False, stdin=stdin)
        done = Completed(tuple(argv), there.code, there.stdout, there.stderr)
        if done.code == UNREACHABLE:
            raise self._silent(done)
        if done.code in {TIMED_OUT, KILLED} and time.monotonic() - began >= limit:
            raise ProgramTimeout(
                f"{argv[0]} did not end within {timeout:g} s on {self.name} and was stopped",
                details=done.tail,
                hint=hint or f"ssh {self.name} shows whether that machine is busy",
            )
        if done.code == _NOT_FOUND:
            raise HostError(
                f"{argv[0]} is not installed on {self.name}",
                details=done.tail,
                hint=f"install it there: ssh {self.name} sudo apt-get install {PACKAGES.get(argv[0], argv[0])}",
            )
        if check and done.code != 0:
            raise process.failed(done, hint)
        return done

    def read(self, path: str) -> str:
        done = self.run(["cat", "--", path], timeout=ASK_SECONDS, check=False)
        if done.code != 0:
            raise HostError(
                f"{path} on {self.name} cannot be read", details=done.tail, hint=f"ssh {self.name} ls -l {path}"
            )
        return done.stdout

    def cpus(self) -> int:
        shown = self.run(["nproc"], timeout=ASK_SECONDS).stdout
        try:
            return int(shown)
        except ValueError as error:
            raise self._strange(shown) from error

    def disk_free(self, folder: PurePosixPath) -> tuple[PurePosixPath, int]:
        shown = self.run(["sh", "-c", _FREE, "sh", str(folder)], timeout=ASK_SECONDS).stdout
        there, _, numbers = shown.rstrip("\n").rpartition("\n")
        try:
            blocks, size = numbers.split()
            return PurePosixPath(there), int(blocks) * int(size)
        except ValueError as error:
            raise self._strange(shown) from error

    def connect(self, lab: str, node: str, port: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        argv = self._ssh([self._klab, "connect", lab, node, str(port)])
        with theirs:
            process.relay(argv, theirs)
        return ours

    def _ssh(self, argv: Sequence[str]) -> list[str]:
        options = {"BatchMode": "yes", "ConnectTimeout": str(CONNECT_SECONDS), "LogLevel": "ERROR", **self._options}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *words, self._target, "--", shlex.join(argv)]

    def _silent(self, done: Completed) -> HostError:
        return HostError(
            f"{self.name} does not answer ssh",
            details=done.tail,
            hint=f"ssh {self.name} true has to work without a password: ssh-copy-id {self.name}",
        )

    def _strange(self, shown: str) -> HostError:
        return HostError(
            f"{self.name} answers with something that klab did not ask for",
            details=[shortened(visible(shown))],
            hint=f"ssh {self.name} true may print nothing: look for the lines in the shell's start-up files there",
        )
