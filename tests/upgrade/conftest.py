"""Two real labs of one minor version below the default: 1m2w, and three control planes.

KLAB_TEST_HOME says which lab: one called `up` that is there and stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.real_lab import Lab, import_disks, prepare, say
from support.upgrading import BEFORE

from lab import resources
from lab.boxes.store import list_boxes
from lab.components.kubernetes import DEFAULT
from lab.store import Home


@pytest.fixture(scope="module")
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Lab]:
    """A lab of the module's SCENARIO with the version before the default's."""
    if kept := os.environ.get("KLAB_TEST_HOME"):
        yield import_disks(Path(kept), "up", "up")
        return
    folder = tmp_path_factory.mktemp("up")
    name: str = request.module.SCENARIO
    scenario = yaml.safe_load((resources.path("scenarios") / f"{name}.yaml").read_text(encoding="utf-8"))
    scenario |= {"name": "up", "kubernetes": {**scenario["kubernetes"], "version": BEFORE}}
    file = folder / "up.yaml"
    file.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        if not any(box.kubernetes == DEFAULT and not box.origin for box in list_boxes(Home.default())):
            pytest.fail(f"there is no box of {DEFAULT}; klab box build makes one")
        found = prepare(folder, str(file), "up", BEFORE)
        try:
            say(f"Kubernetes {BEFORE} on {name}")
            assert found.create() == 0, "klab create failed; its messages are above"
        except BaseException:
            found.destroy()
            raise
    yield found
    found.destroy()
