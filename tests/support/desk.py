"""A lab of two fake machines without a cluster, and ways to let any step of an act fail or be killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.errors import MachineError
from lab.machines.captures import PartKind
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.snapshots.journal import AttemptJournal
from lab.snapshots.store import SnapshotStore
from lab.store import Home
from support.fake_lab import lab_on_disk, opener


@dataclass
class Desk:
    """A lab, its machines and its snapshots."""

    lab: Lab
    machines: FakeMachines
    snapshot_store: SnapshotStore
    events: list[Event] = field(default_factory=list)

    def of(self, **changes: Any) -> Lab:
        return replace(self.lab, **changes)

    def breaking(self, *methods: str) -> Lab:
        """The lab with machines of which these methods fail."""

        def fail(*_: object, **__: object) -> Any:
            raise MachineError("the disk is full", details=["No space left on device"])

        return self.of(open_machines=opener(**dict.fromkeys(methods, fail)))

    def note(self, text: str) -> None:
        for node in self.lab.plan.nodes:
            for kind in PartKind:
                self.machines.write(node.name, kind, text)

    @property
    def noted(self) -> str:
        """The text that every guest has in its RAM and on its disk; all must agree."""
        texts = {self.machines.read(n.name, kind) for n in self.lab.plan.nodes for kind in PartKind}
        assert len(texts) == 1, texts
        return texts.pop()

    @property
    def states(self) -> set[NodeState]:
        return set(self.machines.states().values())

    @property
    def names(self) -> list[str]:
        return [m.name for m in self.snapshot_store.manifests()]

    @property
    def unfinished(self) -> bool:
        return self.lab.folder.attempt.exists()

    def assert_nothing_left(self) -> None:
        """Every snapshot has its files, and there are no other files."""
        assert not self.unfinished
        assert sorted(self.machines.captures().keys()) == sorted(m.id for m in self.snapshot_store.manifests())
        folder = self.lab.folder.path / "fake" / "captures"
        assert {f.name for f in folder.glob("*")} == set(self.machines.captures().keys())


@pytest.fixture
def desk(tmp_path: Path, quick_watch: None) -> Desk:
    home = Home(tmp_path)
    folder, plan = lab_on_disk(home, control_planes=1, workers=1, bootstrap="none")
    events: list[Event] = []
    lab = Lab(home, folder, plan, opener(), listener=events.append)
    machines = FakeMachines(home, folder, plan, folder.record(), None)
    made = Desk(lab, machines, SnapshotStore(folder), events)
    for node in plan.nodes:
        machines.write(node.name, PartKind.DISK, "")
    made.note("first")
    return made


def killed_at(step: str, act: Callable[[], object]) -> None:
    """Run `act` in a child process that is killed as soon as it has written that step to the journal."""
    child = os.fork()
    if child == 0:
        write = AttemptJournal._write

        def killed(journal: AttemptJournal, attempt: Any) -> Any:
            write(journal, attempt)
            if attempt.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return attempt

        AttemptJournal._write = killed  # type: ignore[method-assign]
        try:
            act()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, f"step {step} was never begun"
