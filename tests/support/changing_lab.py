"""A lab with fake machines whose nodes join a cluster and leave it: real HTTPS to the API server, a fake etcd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.cluster.acts import node_changes
from lab.cluster.acts.scale import Change
from lab.cluster.events import Listener
from lab.cluster.lab import Lab as ClusterLab
from lab.errors import ClusterError
from lab.machines.fake.machines import FakeMachines
from lab.plan.file import from_json
from lab.plan.model import Plan
from lab.scenario.rules import quorum
from lab.store import Home, LabFolder
from lab.waiting import Deadline
from support.cluster_server import ClusterServer
from support.fake_lab import lab_on_disk, opener

WELL = "klab: cloud-init begin\nklab: boot done\nklab: join done\nklab: clean done\n"


@dataclass(frozen=True)
class FakeMember:
    name: str
    healthy: bool = True


class FakeEtcd:
    def __init__(self, names: Sequence[str]) -> None:
        self.found = [FakeMember(name) for name in names]
        self.removed: list[str] = []

    def members(self) -> tuple[FakeMember, ...]:
        return tuple(self.found)

    def refuse_loss(self, name: str) -> None:
        well = sum(m.healthy for m in self.found if m.name != name)
        if well < quorum(len(self.found) - 1):
            raise ClusterError(f"without {name} etcd would lose its quorum")

    def remove_member(self, name: str) -> bool:
        if name not in {m.name for m in self.found}:
            return False
        self.removed.append(name)
        self.found = [m for m in self.found if m.name != name]
        return True


class Joining(FakeMachines):
    """Fake machines that join the fake cluster as soon as they run, unless told not to."""

    def __init__(self, *lab: Any, cluster: ClusterServer, says: str, joins: bool) -> None:
        super().__init__(*lab)
        self.cluster, self.says, self.joins = cluster, says, joins

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        super().up(deadline, on_line, nodes)
        for name in nodes or ():
            with self.consoles()[name].open("a") as out:
                out.write(self.says)
            if self.joins and name not in self.cluster.nodes:
                self.cluster.nodes.append(name)


class Lab:
    """A lab to change, and what can be seen of it afterwards."""

    def __init__(self, home: Home, folder: LabFolder, plan: Plan, cluster: ClusterServer, etcd: FakeEtcd) -> None:
        self.home, self.folder, self.cluster, self.etcd = home, folder, cluster, etcd
        cluster.serve(folder, plan)

    def change(
        self,
        kubectl: str = "true",
        listener: Listener | None = None,
        *,
        says: str = WELL,
        joins: bool = True,
        **how: Any,
    ) -> Change:
        machines = opener(partial(Joining, cluster=self.cluster, says=says, joins=joins), **how)
        lab = ClusterLab(self.home, self.folder, self.plan, machines, 20, listener, reach=self.cluster.reach)
        return Change(lab, None, kubectl, lambda _plan, _nodes: None)

    @property
    def plan(self) -> Plan:
        return from_json((self.folder.path / "plan.json").read_text())

    @property
    def names(self) -> list[str]:
        return [n.name for n in self.plan.nodes]

    @property
    def machines(self) -> FakeMachines:
        return FakeMachines(self.home, self.folder, self.plan, self.folder.record(), None)


def lab_of(planes: int, workers: int, tmp_path: Path, cluster: ClusterServer, patch: pytest.MonkeyPatch) -> Lab:
    home = Home(tmp_path)
    folder, plan = lab_on_disk(home, control_planes=planes, workers=workers, bootstrap="full")
    etcd = FakeEtcd([n.name for n in plan.control_planes])
    patch.setattr(node_changes, "Etcd", lambda *_, **__: etcd)
    return Lab(home, folder, plan, cluster, etcd)
