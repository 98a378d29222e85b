"""Captures of fake machines: a folder each, with copies of the files that stand for RAM and disks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lab.disks import images
from lab.errors import MachineError, NotFound, Remedy
from lab.machines.captures import READ_HINT, Part, PartKind, Rewrite, Room, differences
from lab.machines.fake.behaviour import Behaviour
from lab.machines.fake.state import FakeState
from lab.machines.protocol import NodeState
from lab.plan.model import Plan


class FakeCaptures:
    """The captures of one lab of fake machines; see `lab.machines.captures.Captures`."""

    def __init__(self, plan: Plan, books: FakeState, behaviour: Behaviour) -> None:
        self._plan = plan
        self._books = books
        self._behaviour = behaviour
        self._folder = books.folder / "captures"

    def disk(self, node: str, key: str) -> Path:
        """The file that stands for a node's disk in a capture.

        Raises:
            NotFound, MachineError: as `parts`.
        """
        return self._capture(key) / f"disk-{node}"

    def suspend(self, nodes: Sequence[str]) -> dict[str, float]:
        wanted = self._chosen(nodes)
        for node in wanted:
            if not self._books.state(node).on:
                raise MachineError(f"{node} is not running", hint=Remedy("start", lab=self._plan.name, node=node))
        return {node: self._switch(node, NodeState.PAUSED) for node in wanted}

    def resume(self, nodes: Sequence[str]) -> dict[str, float]:
        return {node: self._switch(node, NodeState.RUNNING) for node in self._chosen(nodes)}

    def _switch(self, node: str, state: NodeState) -> float:
        self._books.set_state(node, state)
        return time.time()

    def room(self, nodes: Sequence[str]) -> Room:
        needed = {node.name: node.memory << 20 for node in self._plan.select(nodes)}
        return Room(self._folder, self._behaviour.free, needed)

    def platform(self) -> dict[str, dict[str, str]]:
        return {node.name: {"fake": self._behaviour.version} for node in self._plan.nodes}

    def unfit(self, saved: Mapping[str, Mapping[str, str]]) -> list[str]:
        return differences(saved, self.platform())

    def capture(self, key: str, nodes: Sequence[str], on_saved: Callable[[str], None]) -> None:
        begun = self._folder / f"{key}.begun"
        begun.mkdir(parents=True, exist_ok=True)
        for node in self._chosen(nodes):
            state = self._books.state(node)
            if state in {NodeState.RUNNING, NodeState.ABSENT}:
                raise MachineError(f"{node} must be paused before it is saved, but is {state.value}")
            shutil.copyfile(self._books.disk(node), begun / f"disk-{node}")
            if state == NodeState.PAUSED:
                memory = self._books.memory(node)
                (begun / f"memory-{node}").write_bytes(memory.read_bytes() if memory.exists() else b"")
                shutil.copyfile(self._books.boot_id(node), begun / f"{node}-boot")
            on_saved(node)
        (begun / "made").write_text(repr(time.time()))
        begun.rename(self._folder / key)

    def finalize(self, key: str) -> None:
        self._capture(key)

    def revert(self, key: str, nodes: Sequence[str], on_back: Callable[[str], None]) -> None:
        folder = self._capture(key)
        for node in self._chosen(nodes):
            memory = folder / f"memory-{node}"
            shutil.copyfile(folder / f"disk-{node}", self._books.disk(node))
            if memory.exists():
                shutil.copyfile(memory, self._books.memory(node))
                shutil.copyfile(folder / f"{node}-boot", self._books.boot_id(node))
            self._books.begin_console(node)
            self._books.set_state(node, NodeState.PAUSED if memory.exists() else NodeState.STOPPED)
            on_back(node)

    def keys(self) -> list[str]:
        whole = [file.parent for file in self._folder.glob("*/made") if file.parent.suffix != ".begun"]
        made = {folder.name: self._made(folder) for folder in whole}
        return sorted((key for key, at in made.items() if at is not None), key=lambda key: made[key] or 0.0)

    @staticmethod
    def _made(folder: Path) -> float | None:
        """When a capture was made, in seconds since 1970; None where that is damaged."""
        try:
            return float((folder / "made").read_text())
        except ValueError:
            return None

    def parts(self, key: str) -> list[Part]:
        folder, found = self._capture(key), []
        for node in [n.name for n in self._plan.nodes]:
            for kind in (PartKind.MEMORY, PartKind.DISK):
                file = folder / f"{kind}-{node}"
                if file.exists():
                    found.append(Part(node, kind, f"{key}/{file.name}", file.stat().st_size))
                elif kind == PartKind.DISK:
                    raise MachineError(f"the file {file.name} is missing", details=[str(file)])
        return found

    def content(self, part: Part) -> Iterator[tuple[int, bytes | memoryview]]:
        try:
            yield from images.stretches(self._folder / part.name)
        except OSError as error:
            raise MachineError(f"{part.name} cannot be read", details=[str(error)], hint=READ_HINT) from error

    def rewrites(self, keys: Sequence[str]) -> list[Rewrite]:  # noqa: ARG002 - they share nothing
        return []

    def unmerged(self) -> list[str]:
        return []

    def delete(self, keys: Sequence[str], *, merge: bool = False) -> None:  # noqa: ARG002 - as above
        for key in keys:
            for folder in (self._folder / key, self._folder / f"{key}.begun"):
                shutil.rmtree(folder, ignore_errors=True)

    def _chosen(self, nodes: Sequence[str]) -> list[str]:
        return [node.name for node in self._plan.select(nodes)]

    def _capture(self, key: str) -> Path:
        folder = self._folder / key
        if not (folder / "made").exists():
            raise NotFound(f"there is no capture {key!r}", hint=(Remedy("snapshots"), " lists what there is"))
        if self._made(folder) is None:
            raise MachineError(f"the metadata of capture {key!r} is damaged")
        return folder
