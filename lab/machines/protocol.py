"""What klab asks of the virtual machines of one lab, on any provider.

Three providers keep the contract: libvirt and VirtualBox, each through Vagrant, and a fake
that needs neither. One contract suite (tests/contract) runs against all that can run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from lab.errors import HostError, Remedy
from lab.machines.captures import Captures
from lab.machines.disk_transfer import DiskTransfer
from lab.process import Completed
from lab.waiting import Deadline


class NodeState(StrEnum):
    """What a node's machine is doing."""

    ABSENT = "absent"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    CRASHED = "crashed"

    @property
    def on(self) -> bool:
        """Whether the machine has its RAM: it runs, or is paused."""
        return self in {NodeState.RUNNING, NodeState.PAUSED}


class Machines(Protocol):
    """The virtual machines of one lab. Every method may be called again after a kill at any moment."""

    def check_new(self) -> None:
        """Make sure that nothing is in the way of a new lab's machines. Makes nothing; the lab needs no folder yet.

        Raises:
            Conflict: a thing of another lab, or of another program, holds a name, UUID or network they need.
            HostError: as `up`.
            UsageError: the scenario asks for a processor that the host has not.
        """
        ...

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        """Create what is missing, start what is stopped, leave what runs; returns when each of them answers ssh.

        Does not wait for Kubernetes.

        Args:
            deadline: until when they must answer.
            on_line: receives the provider's output line by line, from another thread.
            nodes: the nodes it is about; all of the plan when left out.

        Raises:
            Conflict: a foreign domain or network has a name, UUID or address it needs.
            HostError: the host lacks a program, a daemon or a right.
            MachineError: a machine cannot be made, started or reached; `details` holds
                the provider's last lines.
        """
        ...

    def cancel(self) -> None:
        """Make a running `up` end soon, from another thread; what it has begun stays for the next `up`."""
        ...

    def start(self, nodes: Sequence[str]) -> None:
        """Power on machines that exist: a paused one is resumed, a running one left. Does not wait for the guests.

        Works after the host was restarted, too: networks and storage that went with it are restored first.

        Raises:
            MachineError: one does not exist, or cannot be started.
        """
        ...

    def stop(self, nodes: Sequence[str], deadline: Deadline) -> list[str]:
        """Ask the guests to shut down, side by side, and wait for it; a paused one is resumed for that.

        Returns:
            The names of those that still run when the deadline has passed.
        """
        ...

    def power_off(self, nodes: Sequence[str]) -> None:
        """Cut the machines' power, as a power failure does; one that is off or absent is left. Idempotent."""
        ...

    def remove(self, node: str, on_line: Callable[[str], None]) -> None:
        """Remove one machine of the plan, its disk and seed; the rest of the lab stays. Idempotent.

        Raises:
            MachineError: something of it is still there.
        """
        ...

    def states(self) -> dict[str, NodeState]:
        """The state of each node of the plan, by name.

        Raises:
            HostError: the provider does not answer.
        """
        ...

    def halted(self) -> dict[str, str]:
        """Why machines are paused that nobody has paused, by node: the host's disk is full, or has errors.

        Raises:
            HostError, MachineError: the provider does not answer.
        """
        ...

    def consoles(self) -> dict[str, Path]:
        """The file that holds each node's serial console output; it may not exist yet."""
        ...

    def ssh(
        self,
        node: str,
        command: Sequence[str],
        timeout: float,
        check: bool = True,
        stdin: str | Path | None = None,
    ) -> Completed:
        """Run a command on a node as user `vagrant`.

        Args:
            node: the node's name.
            command: program and arguments; they reach it unchanged, no shell expands them.
            timeout: seconds it may take.
            check: raise when it exits with anything but 0.
            stdin: text handed to it, or a file of this host.

        Raises:
            MachineError: the node does not answer ssh.
            ProgramError: the command failed and `check` was set.
            ProgramTimeout: it did not end in time.
        """
        ...

    def run(self, node: str, command: Sequence[str], timeout: float) -> Completed:
        """Run a command on a node by the quickest way, as root or as user `vagrant`.

        It may be run twice. A login takes a slow guest seconds; some providers know a way without.

        Args:
            node: the node's name.
            command: program and arguments, as for `ssh`.
            timeout: seconds it may take.

        Raises:
            MachineError: the node does not answer.
            ProgramTimeout: it did not end in time.
        """
        ...

    def ssh_argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        """The ssh command line that reaches a node, for a person's own terminal."""
        ...

    def drop_seeds(self) -> None:
        """Take the cloud-init seeds out of the machines and delete them everywhere. Idempotent."""
        ...

    def destroy(self, on_line: Callable[[str], None]) -> None:
        """Remove every machine, disk, network and seed of this lab, and nothing else. Idempotent.

        Raises:
            MachineError: something is still there; `details` names it.
        """
        ...

    def leftovers(self) -> list[str]:
        """What still exists of this lab outside its folder, one line each; empty after a complete `destroy`."""
        ...

    def set_clock(self, node: str, clock: Callable[[], float], timeout: float) -> float:
        """Set a running guest's clock forward to what `clock` returns, in seconds since 1970; never back.

        Returns:
            By how many seconds it was set forward; 0 when it was right to a tenth of a second, or ahead.

        Raises:
            MachineError, ProgramError, ProgramTimeout: the guest does not take it.
        """
        ...

    def captures(self) -> Captures:
        """Their RAM and disks at earlier moments, and what it takes to keep the present one."""
        ...

    def disk_transfer(self) -> DiskTransfer | None:
        """The way of their disks to another host and from one; None where the provider's features say there is none."""
        ...


def needed_disk_transfer(machines: Machines) -> DiskTransfer:
    """The way of a lab's disks to another host and from one, for what cannot do without.

    Raises:
        HostError: the lab's provider has none.
    """
    found = machines.disk_transfer()
    if found is None:
        raise HostError(
            "bundles are made on libvirt only; this lab's provider cannot make them yet",
            hint=(
                Remedy("snapshot"),
                " keeps this lab's state; ",
                Remedy("create"),
                " makes the lab from its scenario anywhere",
            ),
        )
    return found
