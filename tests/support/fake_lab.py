"""A lab on disk with fake machines."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from lab.machines.fake.behaviour import Behaviour
from lab.machines.fake.machines import FakeMachines
from lab.machines.fake.provider import FakeProvider
from lab.machines.protocol import NodeState
from lab.machines.providers import PROVIDERS
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Bootstrap, Scenario, Topology
from lab.store import Home, LabFolder, Record


def fake(make: Callable[..., FakeMachines] = FakeMachines, **how: Any) -> FakeProvider:
    """A provider of fake machines that behave so; a name that no behaviour has is that of a method to replace."""
    known = {field.name for field in dataclasses.fields(Behaviour)}
    return FakeProvider(
        make=make,
        instead={name: act for name, act in how.items() if name not in known},
        **{name: value for name, value in how.items() if name in known},
    )


def opener(make: Callable[..., FakeMachines] = FakeMachines, **how: Any) -> Any:
    """What opens machines of `fake`."""
    return fake(make, **how).open


def register(patch: pytest.MonkeyPatch, **how: Any) -> None:
    """Let klab's commands meet machines of `fake`."""
    patch.setitem(PROVIDERS, "fake", fake(**how))


def lab_on_disk(
    home: Home, *, control_planes: int, workers: int, bootstrap: Bootstrap, name: str = "demo"
) -> tuple[LabFolder, Plan]:
    """A lab that is Ready, its fake machines running."""
    topology = Topology(control_planes=control_planes, workers=workers)
    plan = decide(Scenario(version=1, name=name, topology=topology, bootstrap=bootstrap), load_catalog())
    folder = home.lab(name)
    folder.logs.mkdir(parents=True)
    (folder.path / "plan.json").write_text(to_json(plan))
    now = time.time()
    record = Record(str(uuid.uuid4()), name, "fake", "box", 0, "ready", now, True, 1.0, now)
    folder.write_record(record)
    machines = FakeMachines(home, folder, plan, record, None)
    (folder.path / "fake").mkdir()
    for node in plan.nodes:
        machines.set_state(node.name, NodeState.STOPPED)
    machines.start([n.name for n in plan.nodes])
    return folder, plan
