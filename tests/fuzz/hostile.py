"""Bundles as somebody would write them who knows the format: right digests, and anything inside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.fake_lab import lab_on_disk, opener
from support.shelved import shelve

from lab.bundles.export_lab import write_bundle
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.format import to_json
from lab.bundles.import_lab import Request, create_from_bundle, plan_of
from lab.bundles.layout import beginning, closing, header, padding
from lab.cluster.lab import Lab
from lab.host.profile import HostProfile
from lab.machines.fake.machines import FakeMachines
from lab.store import Home

Files = dict[str, bytes]


def honest(folder: Path) -> BundleFile:
    """A bundle of a lab of two fake machines, of some kilobytes, by klab's own writer."""
    home = Home(folder / "teacher")
    lab, plan = lab_on_disk(home, control_planes=1, workers=1, bootstrap="none")
    shelve(home, lab, plan)
    FakeMachines(home, lab, plan, lab.record(), None).power_off(["cp1", "w1"])
    return write_bundle(Lab(home, lab, plan, opener()), "lesson-3", folder / "lesson-3.klab")


def parts(file: BundleFile) -> tuple[dict[str, Any], Files]:
    """The manifest as data, and each member's bytes as they lie in the file."""
    whole, at, found = file.path.read_bytes(), file.start, {}
    for member in file.bundle.members:
        found[member.name] = whole[at + 512 : at + 512 + member.size]
        at += 512 + member.size + len(padding(member.size))
    return json.loads(to_json(file.bundle)), found


def written(target: Path, data: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
    """A bundle of just these members; their sizes and digests are right."""
    old = {member["name"]: member for member in data["members"]}
    members = [
        {
            "name": name,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "content": old[name]["content"] if name.endswith(".gz") and name in old else len(content),
        }
        for name, content in files.items()
    ]
    manifest = json.dumps({**data, "members": members}).encode("ascii")
    body = b"".join(header(name, len(c)) + c + padding(len(c)) for name, c in files.items())
    target.write_bytes(beginning(manifest) + body + closing(b""))
    return target


def create(path: Path, home: Home) -> None:
    """What `klab import` does with a file."""
    file = open_bundle(path)
    plan = plan_of(file.bundle)
    lab = Lab(home, home.lab(plan.name), plan, opener(), 60)
    create_from_bundle(Request(lab, file, "fake", HostProfile(accelerated=True, dilation=1.0)))


def tree(root: Path) -> list[str]:
    """All files below a folder, and the folders that hold some."""
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if not file.is_dir() or any(file.iterdir()))


Change = Callable[[dict[str, Any], Files], object]
