"""What captures on libvirt tell of their files, over a pool that stands in for libvirt's; more is in tests/contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.machines.captures import Part, PartKind
from lab.machines.libvirt import captures as module
from lab.machines.libvirt.capture_index import CaptureIndex, Entry, Saved
from lab.machines.libvirt.captures import LibvirtCaptures
from lab.plan.decide import decide
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology


class Store:
    """A pool's files, as `lab.machines.libvirt.volumes.LayerStore` shows them."""

    def __init__(self, _resources: object) -> None: ...

    def size(self, name: str) -> int:
        return len(name)

    def stamp(self, name: str) -> str:
        return f"stamp of {name}"

    def chain(self, layer: str) -> list[str]:
        return [layer, "first.img"]


def test_a_delta_names_the_image_that_it_builds_on(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LayerStore", Store)
    nothing: Any = None
    plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)
    index = CaptureIndex(tmp_path)
    nodes = {"cp1": Saved("a.img", "a.delta.ram", "<domain/>", older="b.ram"), "w1": Saved("c.img", "", "<domain/>")}
    index.write(Entry("one", 1.0, nodes))
    captures = LibvirtCaptures(plan, index, nothing, lambda: nothing, lambda: nothing)
    assert captures.parts("one") == [
        Part("cp1", PartKind.MEMORY, "a.delta.ram", 11, "stamp of a.delta.ram", "b.ram"),
        Part("cp1", PartKind.DISK, "a.img", 5, "stamp of a.img"),
        Part("cp1", PartKind.DISK, "first.img", 9, "stamp of first.img"),
        Part("w1", PartKind.DISK, "c.img", 5, "stamp of c.img"),
        Part("w1", PartKind.DISK, "first.img", 9, "stamp of first.img"),
    ]
