"""The disks of fake machines: files, that are copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.errors import MachineError, Remedy
from lab.machines.disk_transfer import Incoming
from lab.machines.fake.behaviour import Behaviour
from lab.machines.fake.captures import FakeCaptures
from lab.machines.fake.state import FakeState
from lab.machines.protocol import NodeState
from lab.plan.model import Plan


class FakeDiskTransfer:
    """See `lab.machines.disk_transfer.DiskTransfer`."""

    def __init__(self, plan: Plan, books: FakeState, captures: FakeCaptures, behaviour: Behaviour) -> None:
        self._plan = plan
        self._books = books
        self._captures = captures
        self._behaviour = behaviour

    def export(self, node: str, box: Path, target: Path, key: str | None = None) -> None:  # noqa: ARG002 - it lies on none
        name = self._plan.known(node).name
        if key is None and self._books.state(name) not in {NodeState.STOPPED, NodeState.CRASHED}:
            raise MachineError(f"{name} is not off", hint=Remedy("stop", lab=self._plan.name))
        shutil.copyfile(self._exported(name, key), target)

    def host_key(self, node: str, key: str | None = None) -> str:  # noqa: ARG002 - it is the same at any time
        return f"fake key of {node}\n"

    def size_estimate(self, node: str, key: str | None = None) -> int:
        return self._exported(node, key).stat().st_size

    def _exported(self, node: str, key: str | None) -> Path:
        return self._books.disk(node) if key is None else self._captures.disk(node, key)

    def import_disks(self, disks: Mapping[str, Incoming], on_made: Callable[[str], None]) -> None:
        self._books.folder.mkdir(parents=True, exist_ok=True)
        for node in (each.name for each in self._plan.select(list(disks))):
            if self._books.state(node) == NodeState.ABSENT:
                disks[node].write(self._books.disk(node))
                self._books.set_state(node, NodeState.STOPPED)
            on_made(node)
