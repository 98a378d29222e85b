"""Failures of a lab's machines that come from outside klab, by provider, and what a test can see of them there."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from contract.guests import KEEP, RECALL

from lab.host.namespaces import started
from lab.machines.captures import PartKind
from lab.machines.fake.machines import FakeMachines
from lab.machines.libvirt.definitions import DhcpHost, dhcp_hosts
from lab.machines.protocol import NodeState
from lab.process import Completed
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    from contract.labs import Lab


class Outside(Protocol):
    """`vagrant` says whether Vagrant knows of the machines, `daemon` whether a daemon runs them, over networks."""

    vagrant: bool
    daemon: bool

    def pause(self, lab: Lab, node: str) -> None:
        """Pause a node's machine."""

    def crash(self, lab: Lab, node: str) -> None:
        """Kill the program that runs a node's machine."""

    def kill_daemon(self, lab: Lab) -> None:
        """Kill the daemon that runs the machines, where there is one."""

    def management_hosts(self, lab: Lab) -> list[DhcpHost]:
        """The entries of the management network."""

    def capture_file(self, lab: Lab, name: str) -> Path:
        """Where a capture's file is."""

    def read(self, file: Path) -> bytes:
        """What is in a capture's file, whoever it belongs to."""

    def write(self, file: Path, data: bytes) -> None:
        """Replace what is in a capture's file; owner and mode stay."""

    def rename(self, file: Path, name: str) -> Path:
        """Give a capture's file another name in its folder."""

    def capture_entry(self, lab: Lab, key: str) -> Path:
        """The file in which stands what a capture consists of."""


class OwnFiles:
    """Captures' files as the files of whoever runs the tests."""

    def read(self, file: Path) -> bytes:
        return file.read_bytes()

    def write(self, file: Path, data: bytes) -> None:
        with file.open("r+b") as out:
            out.write(data)
            out.truncate()

    def rename(self, file: Path, name: str) -> Path:
        return file.rename(file.with_name(name))


@dataclass
class FakeOutside(OwnFiles):
    vagrant: bool = False
    daemon: bool = False

    def pause(self, lab: Lab, node: str) -> None:
        self._set(lab, node, NodeState.PAUSED)

    def crash(self, lab: Lab, node: str) -> None:
        self._set(lab, node, NodeState.CRASHED)

    def _set(self, lab: Lab, node: str, state: NodeState) -> None:
        TinyGuests(lab.home, lab.folder, lab.plan, lab.folder.record(), lab.box).set_state(node, state)

    def kill_daemon(self, lab: Lab) -> None:
        pass

    def management_hosts(self, lab: Lab) -> list[DhcpHost]:
        raise NotImplementedError("fake machines have no networks")

    def capture_file(self, lab: Lab, name: str) -> Path:
        return lab.folder.path / "fake" / "captures" / name

    def capture_entry(self, lab: Lab, key: str) -> Path:
        return self.capture_file(lab, key) / "made"


@dataclass
class LibvirtOutside(OwnFiles):
    vagrant: bool = True
    daemon: bool = True

    def pause(self, lab: Lab, node: str) -> None:
        self._domain(lab, node).suspend()

    def crash(self, lab: Lab, node: str) -> None:
        domain, machines = self._domain(lab, node), lab.open()
        pid = lab.home.private_libvirt / "run" / "qemu" / f"{domain.name()}.pid"
        os.kill(int(pid.read_text()), signal.SIGKILL)
        assert poll(lambda: machines.states()[node] != NodeState.RUNNING, Deadline.after(60), every=0.1)

    def kill_daemon(self, lab: Lab) -> None:
        daemon = int((lab.home.private_libvirt / "run" / "libvirtd.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        assert poll(lambda: started(daemon) is None, Deadline.after(60), every=0.1)

    def management_hosts(self, lab: Lab) -> list[DhcpHost]:
        from lab.machines.libvirt.connection import connect

        return dhcp_hosts(connect().networkLookupByName(lab.plan.networks.management_name).XMLDesc())

    def capture_file(self, lab: Lab, name: str) -> Path:
        return Path(f"/var/lib/libvirt/images/klab-{lab.folder.record().id}/{name}")

    def capture_entry(self, lab: Lab, key: str) -> Path:
        return lab.folder.captures / f"{key}.json"

    @staticmethod
    def _domain(lab: Lab, node: str) -> Any:
        from lab.machines.libvirt.connection import connect

        found = lab.plan.node(node)
        assert found is not None
        return connect().lookupByUUIDString(found.uuid)


@dataclass
class SystemOutside(LibvirtOutside):
    """The system's libvirtd, whose processes and files belong to others: it takes sudo to harm them."""

    def crash(self, lab: Lab, node: str) -> None:
        domain, machines = self._domain(lab, node), lab.open()
        pid = _sudo("cat", f"/run/libvirt/qemu/{domain.name()}.pid").decode()
        _sudo("kill", "-KILL", pid.strip())
        assert poll(lambda: machines.states()[node] != NodeState.RUNNING, Deadline.after(60), every=0.1)

    def kill_daemon(self, lab: Lab) -> None:
        daemon = int(_sudo("systemctl", "show", "--value", "--property=MainPID", "libvirtd"))
        _sudo("kill", "-KILL", str(daemon))
        assert poll(lambda: started(daemon) is None, Deadline.after(60), every=0.1)

    def read(self, file: Path) -> bytes:
        return _sudo("cat", str(file))

    def write(self, file: Path, data: bytes) -> None:
        _sudo("tee", str(file), stdin=data)

    def rename(self, file: Path, name: str) -> Path:
        _sudo("mv", str(file), str(file.with_name(name)))
        return file.with_name(name)


def _sudo(*words: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["sudo", "--non-interactive", *words], input=stdin, check=True, capture_output=True).stdout


def outside(provider: str) -> Outside:
    """What can be done from outside to the machines of a provider, where these tests run."""
    if provider == "fake":
        return FakeOutside()
    return SystemOutside() if on_system_libvirt() else LibvirtOutside()


def on_system_libvirt() -> bool:
    """Whether the tests use the system's libvirtd; else they use a private one."""
    return os.environ.get("KLAB_LIBVIRT") == "system"


class TinyGuests(FakeMachines):
    """Fake machines whose guests do what the tests ask of the tiny box's: keep a text, show their clock, go deaf."""

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | None = None
    ) -> Completed:
        done = super().ssh(node, command, timeout, check, stdin)
        asked = self._asked().get(" ".join(command))
        return done if asked is None else replace(done, stdout=asked(node, stdin or ""))

    def stop(self, nodes: Sequence[str], deadline: Deadline) -> list[str]:
        deaf = frozenset(node for node in nodes if self._is_deaf(node))
        self._behaviour = replace(self._behaviour, stubborn=deaf)
        return super().stop(nodes, deadline)

    def _asked(self) -> dict[str, Callable[[str, str], str]]:
        return {
            f"sh -c {KEEP}": self._keep,
            f"sh -c {'; '.join(RECALL.values())}": self._recall,
            "date +%s": lambda node, _text: f"{int(float(self._books.clock(node).read_text()))}\n",
            "killall acpid": self._go_deaf,
        }

    def _keep(self, node: str, text: str) -> str:
        for kind in PartKind:
            self.write(node, kind, text)
        return ""

    def _recall(self, node: str, _text: str) -> str:
        return "".join(f"{self.read(node, kind)}\n" for kind in RECALL)

    def _go_deaf(self, node: str, _text: str) -> str:
        self._deaf(node).write_text(self._books.boot_id(node).read_text())
        return ""

    def _is_deaf(self, node: str) -> bool:
        """Whether the guest has gone deaf in its present boot."""
        return self._deaf(node).is_file() and self._deaf(node).read_text() == self._books.boot_id(node).read_text()

    def _deaf(self, node: str) -> Path:
        return self._folder.path / f"deaf-{node}"
