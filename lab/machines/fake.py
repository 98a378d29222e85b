"""Machines that are files: quick, and good for everything but running a guest.

Everything about a machine stands in `fake/` in the lab's folder, so that it outlives the
process like a real one: `NODE.json` holds its state, its console is a file, and `ssh` runs
nothing but what `answers` gives. A file `disk-NODE` stands for its disk.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from lab.errors import MachineError, NotFound
from lab.machines.protocol import NodeState
from lab.plan import Plan
from lab.process import Completed, failed
from lab.render.vagrantfile import USER
from lab.store import Home, LabFolder, Record, write_atomic
from lab.waiting import Deadline

BOOT_LINE = "machine {node} is up"


class FakeMachines:
    """The machines of one lab that nobody has to wait for; see `lab.machines.protocol.Machines`.

    `answers` maps a command, joined by blanks, to exit code and output; `hostname`, `true`
    and `cat` work by themselves, and any other command prints nothing and succeeds.
    """

    answers: ClassVar[Mapping[str, tuple[int, str]]] = {}

    def __init__(self, _home: Home, folder: LabFolder, plan: Plan, _record: Record, _box: Path | None) -> None:
        self._folder = folder
        self._plan = plan
        self._cancelled = threading.Event()

    @property
    def _books(self) -> Path:
        return self._folder.path / "fake"

    def up(self, deadline: Deadline, on_line: Callable[[str], None]) -> None:
        for node in self._plan.nodes:
            if self._cancelled.is_set() or deadline.passed:
                raise MachineError("starting the machines was stopped", hint="klab create again goes on")
            state = self.states()[node.name]
            if state == NodeState.RUNNING:
                continue
            if state == NodeState.ABSENT:
                self._make(node.name)
            self._write(node.name, NodeState.RUNNING)
            on_line(BOOT_LINE.format(node=node.name))
            console = self.consoles()[node.name]
            console.parent.mkdir(parents=True, exist_ok=True)
            with console.open("a", encoding="utf-8") as out:
                print(BOOT_LINE.format(node=node.name), file=out)

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
        elif command == ["false"]:
            code = 1
        elif command[:1] == ["echo"]:
            output = " ".join(command[1:]) + "\n"
        done = Completed(tuple(argv), code, output, "")
        if check and code != 0:
            raise failed(done)
        return done

    def ssh_argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        found = self._plan.node(node)
        if found is None:
            names = ", ".join(n.name for n in self._plan.nodes)
            raise NotFound(f"lab {self._plan.name!r} has no node called {node!r}", hint=f"it has: {names}")
        return ["ssh", f"{USER}@{found.address}", *command]

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

    def _read(self, node: str) -> NodeState:
        try:
            return NodeState(json.loads((self._books / f"{node}.json").read_text())["state"])
        except OSError:
            return NodeState.ABSENT

    def _write(self, node: str, state: NodeState) -> None:
        write_atomic(self._books / f"{node}.json", json.dumps({"state": state.value}))
