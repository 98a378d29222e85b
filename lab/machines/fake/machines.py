"""Machines that are files: quick, and good for everything but running a guest.

Everything about a machine is in the lab's folder, so that it outlives the process like a
real one (see `lab.machines.fake.state`); its console is a file, and `ssh` runs nothing but
what its behaviour gives. A boot empties its RAM.

No lab.json can ask for them: they are in no registry until a test puts their provider there.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.errors import Conflict, MachineError, Remedy
from lab.machines.captures import PartKind
from lab.machines.fake.behaviour import Behaviour
from lab.machines.fake.captures import FakeCaptures
from lab.machines.fake.disk_transfer import FakeDiskTransfer
from lab.machines.fake.state import FakeState
from lab.machines.protocol import NodeState
from lab.machines.vagrant.provider import refuse_absent
from lab.plan.model import Plan
from lab.plan.names import USER
from lab.process import Completed, failed
from lab.store import Home, LabFolder, Record
from lab.waiting import Deadline

BOOT_LINE = "machine {node} is up"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
PLAIN = Behaviour()


class FakeMachines:
    """The machines of one lab that nothing has to wait for; see `lab.machines.protocol.Machines`.

    `hostname`, `true`, `false`, `echo` and `cat` work by themselves over ssh, and any other command that
    the behaviour has no answer for prints nothing and succeeds.
    """

    def __init__(
        self,
        _home: Home,
        folder: LabFolder,
        plan: Plan,
        _record: Record,
        _box: Path | None,
        behaviour: Behaviour = PLAIN,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._behaviour = behaviour
        self._books = FakeState(folder.path / "fake")
        self._cancelled = threading.Event()

    def check_new(self) -> None:
        if self._behaviour.foreign:
            raise Conflict("a machine that does not belong to this lab already exists (needed for cp1)")

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        for node in self._named(nodes):
            if self._cancelled.is_set() or deadline.passed:
                raise MachineError("starting the machines was stopped", hint=(Remedy("create"), " again continues"))
            state = self._books.state(node)
            if state == NodeState.RUNNING:
                continue
            if state == NodeState.ABSENT:
                self._make(node)
            self._switch_on(node)
            on_line(BOOT_LINE.format(node=node))

    def _switch_on(self, node: str) -> None:
        """Let a machine run; one that was not merely paused boots."""
        if not self._books.state(node).on:
            self._books.boot_id(node).write_text(f"{uuid.uuid4()}\n")
            self._books.memory(node).unlink(missing_ok=True)
            self._books.begin_console(node, f"{BOOT_LINE.format(node=node)}\n")
        self._books.set_state(node, NodeState.RUNNING)

    def _make(self, node: str) -> None:
        seed = self._folder.seeds / f"{node}.iso"
        if not seed.is_file():
            raise MachineError(
                f"the machine of {node} is missing, and so is the seed to create it from",
                hint=(Remedy("destroy", lab=self._plan.name), ", then ", Remedy("create"), " recreates it"),
            )
        self._books.folder.mkdir(parents=True, exist_ok=True)
        self._books.disk(node).touch()
        shutil.copyfile(seed, self._books.seed(node))

    def cancel(self) -> None:
        self._cancelled.set()

    def start(self, nodes: Sequence[str]) -> None:
        wanted = self._named(nodes)
        refuse_absent(wanted, {node for node in wanted if self._books.state(node) != NodeState.ABSENT})
        for node in wanted:
            self._switch_on(node)

    def stop(self, nodes: Sequence[str], deadline: Deadline) -> list[str]:
        on = [node for node in self._named(nodes) if self._books.state(node).on]
        late = [node for node in on if node in self._behaviour.stubborn or deadline.passed]
        for node in on:
            self._books.set_state(node, NodeState.RUNNING if node in late else NodeState.STOPPED)
        return late

    def power_off(self, nodes: Sequence[str]) -> None:
        for node in self._named(nodes):
            if self._books.state(node) != NodeState.ABSENT:
                self._books.set_state(node, NodeState.STOPPED)

    def remove(self, node: str, on_line: Callable[[str], None]) -> None:
        self._named([node])
        on_line(f"removing the machine of {node}")
        for file in (
            *self._books.files(node),
            self._folder.seeds / f"{node}.iso",
            self.consoles()[node],
        ):
            file.unlink(missing_ok=True)

    def states(self) -> dict[str, NodeState]:
        return {node.name: self._books.state(node.name) for node in self._plan.nodes}

    def halted(self) -> dict[str, str]:
        return {}

    def consoles(self) -> dict[str, Path]:
        return {node.name: self._books.console(node.name) for node in self._plan.nodes}

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | Path | None = None
    ) -> Completed:
        argv = self.ssh_argv(node, command)
        if timeout <= 0 or self._books.state(node) != NodeState.RUNNING:
            raise MachineError(f"{node} does not answer ssh", hint=(Remedy("logs", node=node), " shows its console"))
        code, output = self._behaviour.answers.get(" ".join(command), (0, ""))
        if command == ["hostname"]:
            output = f"{node}\n"
        elif command == ["cat"]:
            output = stdin.read_text() if isinstance(stdin, Path) else stdin or ""
        elif command == ["cat", BOOT_ID]:
            output = self._books.boot_id(node).read_text()
        elif command == ["false"]:
            code = 1
        elif command[:1] == ["echo"]:
            output = " ".join(command[1:]) + "\n"
        done = Completed(tuple(argv), code, output, "")
        if check and code != 0:
            raise failed(done)
        return done

    def run(self, node: str, command: Sequence[str], timeout: float) -> Completed:
        return self.ssh(node, command, timeout, check=False)

    def ssh_argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        return ["ssh", f"{USER}@{self._plan.known(node).address}", *command]

    def _named(self, names: Sequence[str] | None) -> list[str]:
        return [node.name for node in self._plan.select(names)]

    def drop_seeds(self) -> None:
        for node in self._plan.nodes:
            self._books.seed(node.name).unlink(missing_ok=True)
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    def destroy(self, on_line: Callable[[str], None]) -> None:
        on_line("removing the machines")
        shutil.rmtree(self._books.folder, ignore_errors=True)
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    def leftovers(self) -> list[str]:
        files = sorted(self._books.folder.iterdir()) if self._books.folder.is_dir() else []
        return [f"file {file.name}" for file in [*files, *sorted(self._folder.seeds.glob("*.iso"))]]

    def set_state(self, node: str, state: NodeState) -> None:
        """Let a machine stop, crash or pause, as machines do."""
        self._books.set_state(node, state)

    def write(self, node: str, kind: PartKind, text: str) -> None:
        """Let a guest have something in its RAM, or on its disk."""
        self._books.content(node, kind).write_text(text)

    def read(self, node: str, kind: PartKind) -> str:
        """What a guest has in its RAM, or on its disk."""
        file = self._books.content(node, kind)
        return file.read_text() if file.exists() else ""

    def set_clock(self, node: str, clock: Callable[[], float], timeout: float) -> float:
        if timeout <= 0 or self._books.state(node) != NodeState.RUNNING:
            raise MachineError(f"{node} does not answer ssh")
        file = self._books.clock(node)
        now = clock()
        behind = now - (float(file.read_text()) if file.exists() else 0.0)
        if behind > 0:
            file.write_text(repr(now))
        return max(0.0, behind)

    def captures(self) -> FakeCaptures:
        return self._behaviour.applied(FakeCaptures(self._plan, self._books, self._behaviour))

    def disk_transfer(self) -> FakeDiskTransfer:
        return self._behaviour.applied(FakeDiskTransfer(self._plan, self._books, self.captures(), self._behaviour))
