"""Every target, and why some functions that read something are none."""

from __future__ import annotations

from fuzz.harness import Target
from fuzz.kinds import cluster, disks, files, images, people, programs, upstream

TARGETS: tuple[Target, ...] = (
    *people.TARGETS,
    *files.TARGETS,
    *disks.TARGETS,
    *programs.TARGETS,
    *cluster.TARGETS,
    *upstream.TARGETS,
    *images.TARGETS,
)
# Functions that read, and what makes their input trustworthy or tests them otherwise.
NOT_FUZZED: dict[str, str] = {
    "lab.boxes.gomodules:_Go.download": "the go command's answer, in a build that its checksum database vouches for",
    "lab.boxes.images:read_layout": "the store's own layout, whose blobs are found by their digests",
    "lab.boxes.packs:compress": "a layout that klab itself has just written",
    "lab.boxes.store:_read_all": "calls read_box for each box",
    "lab.scenario.catalog:parse_recipe": "recipes come with klab; tests/unit/boxes/test_catalog.py",
    "lab.scenario.cloud_images:read_cloud_image": "recipes come with klab; tests/unit/boxes/test_catalog.py",
    "lab.scenario.catalog:_load": "recipes come with klab; tests/unit/boxes/test_catalog.py",
    "lab.scenario.catalog:read_recipe": "recipes come with klab; tests/unit/boxes/test_catalog.py",
    "lab.cli.terminal.groups:DefaultGroup.parse_args": "click's arguments, which no file holds",
    "lab.cluster.acts.certificates:_Renewal._ours": "a CA that authorities has read",
    "lab.cluster.acts.certificates:_Renewal._until": "a CA that authorities has read",
    "lab.files:read_limited": "reads bytes and takes nothing apart; tests/unit/test_files.py",
    "lab.machines.fake.state:FakeState.state": "of the fake machines, for tests only",
    "lab.machines.libvirt.ram_images:Image.read_head": "passes bytes on to libvirt",
    "lab.scenario.yaml_scalars:_decoded": "a scalar of a tree; the targets add-on and scenario reach it",
    "lab.plan.file:to_data": "reads what it has just written",
}
