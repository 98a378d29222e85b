"""Every target, and why some functions that read something are none."""

from __future__ import annotations

from fuzz.harness import Target
from fuzz.kinds import cluster, disks, files, people, programs

TARGETS: tuple[Target, ...] = (
    *people.TARGETS,
    *files.TARGETS,
    *disks.TARGETS,
    *programs.TARGETS,
    *cluster.TARGETS,
)
# Functions that read, and what makes their input trustworthy or tests them otherwise.
NOT_FUZZED: dict[str, str] = {
    "lab.boxes.gomodules:_Go.download": "the go command's answer, in a build that its checksum database vouches for",
    "lab.boxes.images:read_layout": "the store's own layout, whose blobs are found by their digests",
    "lab.boxes.store:_read_all": "calls read_box for each box",
    "lab.catalog:parse_recipe": "recipes come with klab; tests/unit/boxes/test_catalog.py",
    "lab.catalog:read_recipe": "recipes come with klab; tests/unit/boxes/test_catalog.py",
    "lab.cli.groups:DefaultGroup.parse_args": "click's arguments, which no file holds",
    "lab.cluster.certificates:_Run._ours": "a CA that authorities has read",
    "lab.cluster.certificates:_Run._until": "a CA that authorities has read",
    "lab.cluster.watch:Watch._read_consoles": "calls Console.read, which is fuzzed",
    "lab.files:read_limited": "reads bytes and takes nothing apart; tests/unit/test_files.py",
    "lab.machines.fake_books:FakeBooks.state": "of the fake machines, for tests only",
    "lab.machines.ram_images:Image.read_head": "passes bytes on to libvirt",
    "lab.yamlscalars:_decoded": "a scalar of a tree; the targets add-on and scenario reach it",
    "lab.planfile:to_data": "reads what it has just written",
}
