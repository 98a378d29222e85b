"""What is known of fake machines: files in `fake/` in the lab's folder.

`NODE.json` holds a machine's state, `NODE-boot` tells one boot from the next, `NODE-clock` is
the guest's clock. `disk-NODE` stands for its disk, `memory-NODE` for its RAM.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.files import write_atomic
from lab.machines.captures import PartKind
from lab.machines.protocol import NodeState
from lab.plan.names import console_file
from lab.store import LabFolder


@dataclass(frozen=True, slots=True)
class FakeState:
    """The files of one lab's machines."""

    folder: Path

    def disk(self, node: str) -> Path:
        return self.folder / f"disk-{node}"

    def memory(self, node: str) -> Path:
        return self.folder / f"memory-{node}"

    def boot_id(self, node: str) -> Path:
        return self.folder / f"{node}-boot"

    def clock(self, node: str) -> Path:
        return self.folder / f"{node}-clock"

    def seed(self, node: str) -> Path:
        return self.folder / f"{node}-seed.iso"

    def files(self, node: str) -> list[Path]:
        """All that a machine is made of."""
        return [
            self.folder / f"{node}.json",
            self.boot_id(node),
            self.clock(node),
            self.seed(node),
            self.disk(node),
            self.memory(node),
        ]

    def console(self, node: str) -> Path:
        return LabFolder(self.folder.parent).logs / console_file(node)

    def begin_console(self, node: str, text: str = "") -> None:
        """Begin a machine's console afresh, as each start of it does."""
        self.console(node).parent.mkdir(parents=True, exist_ok=True)
        self.console(node).unlink(missing_ok=True)
        self.console(node).write_text(text)

    def content(self, node: str, kind: PartKind) -> Path:
        return self.memory(node) if kind == PartKind.MEMORY else self.disk(node)

    def state(self, node: str) -> NodeState:
        try:
            return NodeState(json.loads((self.folder / f"{node}.json").read_text())["state"])
        except OSError:
            return NodeState.ABSENT

    def set_state(self, node: str, state: NodeState) -> None:
        write_atomic(self.folder / f"{node}.json", json.dumps({"state": state.value}))
