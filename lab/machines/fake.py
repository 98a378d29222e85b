"""Machines that are files: quick, and good for everything but running a guest.

Everything about a machine stands in `fake/` in the lab's folder, so that it outlives the
process like a real one: `NODE.json` holds its state, `NODE-boot` tells one boot from the
next, its console is a file, and `ssh` runs nothing but what `answers` gives. A file
`disk-NODE` stands for its disk.
"""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lab.errors import MachineError, NotFound
from lab.machines.protocol import NodeState
from lab.plan import Node, Plan
from lab.process import Completed, failed
from lab.render.vagrantfile import USER
from lab.store import Home, LabFolder, Record, write_atomic
from lab.waiting import Deadline

BOOT_LINE = "machine {node} is up"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class FakeMachines:
    """The machines of one lab that nobody has to wait for; see `lab.machines.protocol.Machines`.

    `answers` maps a command, joined by blanks, to exit code and output; `hostname`, `true`
    and `cat` work by themselves, and any other command prints nothing and succeeds. The guests
    of the nodes in `stubborn` do not hear the power button.
    """

    answers: ClassVar[Mapping[str, tuple[int, str]]] = {}
    stubborn: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, _home: Home, folder: LabFolder, plan: Plan, _record: Record, _box: Path | None) -> None:
        self._folder = folder
        self._plan = plan
        self._cancelled = threading.Event()

    @property
    def _books(self) -> Path:
        return self._folder.path / "fake"

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        for node in [found.name for found in self._named(nodes)]:
            if self._cancelled.is_set() or deadline.passed:
                raise MachineError("starting the machines was stopped", hint="klab create again goes on")
            state = self._read(node)
            if state == NodeState.RUNNING:
                continue
            if state == NodeState.ABSENT:
                self._make(node)
            self._switch_on(node)
            on_line(BOOT_LINE.format(node=node))

    def _switch_on(self, node: str) -> None:
        """Let a machine run; one that was not merely paused boots."""
        if self._read(node) not in {NodeState.RUNNING, NodeState.PAUSED}:
            self._boot_id(node).write_text(f"{uuid.uuid4()}\n")
            console = self.consoles()[node]
            console.parent.mkdir(parents=True, exist_ok=True)
            with console.open("a", encoding="utf-8") as out:
                print(BOOT_LINE.format(node=node), file=out)
        self._write(node, NodeState.RUNNING)

    def _make(self, node: str) -> None:
        seed = self._folder.seeds / f"{node}.iso"
        if not seed.is_file():
            raise MachineError(
                f"the machine of {node} is gone, and so is the seed to make it from",
                hint=f"klab destroy {self._plan.name}, then klab create it anew",
            )
        self._books.mkdir(parents=True, exist_ok=True)
        (self._books / f"disk-{node}").touch()
        shutil.copyfile(seed, self._books / f"{node}-seed.iso")

    def cancel(self) -> None:
        self._cancelled.set()

    def start(self, nodes: Sequence[str]) -> None:
        wanted = [found.name for found in self._named(nodes)]
        absent = [node for node in wanted if self._read(node) == NodeState.ABSENT]
        if absent:
            raise MachineError(
                f"there is no machine to start for {', '.join(absent)}",
                hint=f"klab node replace {absent[0]} makes it anew",
            )
        for node in wanted:
            self._switch_on(node)

    def stop(self, nodes: Sequence[str], deadline: Deadline) -> list[str]:
        lit = {NodeState.RUNNING, NodeState.PAUSED}
        on = [found.name for found in self._named(nodes) if self._read(found.name) in lit]
        late = [node for node in on if node in self.stubborn or deadline.passed]
        for node in on:
            self._write(node, NodeState.RUNNING if node in late else NodeState.STOPPED)
        return late

    def power_off(self, nodes: Sequence[str]) -> None:
        for found in self._named(nodes):
            if self._read(found.name) != NodeState.ABSENT:
                self._write(found.name, NodeState.STOPPED)

    def remove(self, node: str, on_line: Callable[[str], None]) -> None:
        self._named([node])
        on_line(f"removing the machine of {node}")
        for file in (
            *(self._books / name for name in (f"{node}.json", f"{node}-boot", f"{node}-seed.iso", f"disk-{node}")),
            self._folder.seeds / f"{node}.iso",
            self.consoles()[node],
        ):
            file.unlink(missing_ok=True)

    def states(self) -> dict[str, NodeState]:
        return {node.name: self._read(node.name) for node in self._plan.nodes}

    def consoles(self) -> dict[str, Path]:
        return {node.name: self._folder.logs / f"console-{node.name}.log" for node in self._plan.nodes}

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | None = None
    ) -> Completed:
        argv = self.ssh_argv(node, command)
        if timeout <= 0 or self._read(node) != NodeState.RUNNING:
            raise MachineError(f"{node} does not answer ssh", hint=f"klab logs {node} shows its console")
        code, output = self.answers.get(" ".join(command), (0, ""))
        if command == ["hostname"]:
            output = f"{node}\n"
        elif command == ["cat"]:
            output = stdin or ""
        elif command == ["cat", BOOT_ID]:
            output = self._boot_id(node).read_text()
        elif command == ["false"]:
            code = 1
        elif command[:1] == ["echo"]:
            output = " ".join(command[1:]) + "\n"
        done = Completed(tuple(argv), code, output, "")
        if check and code != 0:
            raise failed(done)
        return done

    def ssh_argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        (found,) = self._named([node])
        return ["ssh", f"{USER}@{found.address}", *command]

    def _named(self, names: Sequence[str] | None) -> list[Node]:
        """The nodes of these names, in the plan's order; all of them for None."""
        for name in names or ():
            if self._plan.node(name) is None:
                there = ", ".join(node.name for node in self._plan.nodes)
                raise NotFound(f"lab {self._plan.name!r} has no node called {name!r}", hint=f"it has: {there}")
        return [node for node in self._plan.nodes if names is None or node.name in names]

    def drop_seeds(self) -> None:
        for node in self._plan.nodes:
            (self._books / f"{node.name}-seed.iso").unlink(missing_ok=True)
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    def destroy(self, on_line: Callable[[str], None]) -> None:
        on_line("removing the machines")
        shutil.rmtree(self._books, ignore_errors=True)
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    def leftovers(self) -> list[str]:
        files = sorted(self._books.iterdir()) if self._books.is_dir() else []
        return [f"file {file.name}" for file in [*files, *sorted(self._folder.seeds.glob("*.iso"))]]

    def set_state(self, node: str, state: NodeState) -> None:
        """Let a machine stop, crash or pause, as machines do."""
        self._write(node, state)

    def _boot_id(self, node: str) -> Path:
        """The file with what tells one boot of a machine from the next."""
        return self._books / f"{node}-boot"

    def _read(self, node: str) -> NodeState:
        try:
            return NodeState(json.loads((self._books / f"{node}.json").read_text())["state"])
        except OSError:
            return NodeState.ABSENT

    def _write(self, node: str, state: NodeState) -> None:
        write_atomic(self._books / f"{node}.json", json.dumps({"state": state.value}))
