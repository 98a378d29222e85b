"""References to images, manifests that name some, archives that hold some, and what nodes say of those they have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from fuzz.harness import Target
from fuzz.mutations import json_texts, octets, texts
from support.saved_images import CONTAINERD, image, layout_files, saved_files, write_tar

from lab.images.archive import parse_layout, parse_saved, take_all
from lab.images.record import LabImage, from_json, to_data
from lab.images.sources import parse_source
from lab.images.store import Store, parse_labels, parse_platform
from lab.render.images import parse_seen
from lab.scenario.manifests import read_loosely
from lab.scenario.pod_images import images_of
from lab.scenario.references import parse_reference
from lab.scenario.yaml_source import manifest_budget
from lab.store import Home
from lab.text import visible

A, B, C = "a" * 64, "b" * 64, "c" * 64
POD = """\
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  containers: [{name: a, image: "team/app:1", imagePullPolicy: Never}]
  volumes: [{name: v, image: {reference: "ghcr.io/team/model@sha256:x"}}]
"""


def _of(*seeds: str) -> Callable[[Path], Sequence[str]]:
    return lambda _folder: seeds


def reference(text: str, _folder: Path) -> None:
    found = parse_reference(text)
    whole = str(found)
    assert parse_reference(whole) == found
    assert visible(whole) == whole
    assert ".." not in whole.split("/")
    assert not set(whole) & set(" '\"$;`\\\n")


def source(text: str, _folder: Path) -> None:
    found = parse_source(text)
    assert (found.path is None) != (found.reference is None)


def manifest(text: str, _folder: Path) -> None:
    for use in images_of(read_loosely(text, "fuzz", manifest_budget())):
        assert (use.reference is None) == bool(use.problem)
        assert visible(use.at) == use.at


def layout(text: str, _folder: Path) -> None:
    assert all(len(each.hex) == 64 for each in parse_layout(text))


def saved(text: str, _folder: Path) -> None:
    assert all(isinstance(name, str) for names in parse_saved(text) for name in names)


def platform(text: str, _folder: Path) -> None:
    found = parse_platform(text)
    assert visible(found) == found


def archives(folder: Path) -> list[bytes]:
    files = layout_files([(image(indexed=True, size=50), {CONTAINERD: "docker.io/team/app:1"})])
    return [write_tar(folder / "a.tar", files).read_bytes(), write_tar(folder / "b.tgz", files, "w:gz").read_bytes()]


def archive(data: bytes, folder: Path) -> None:
    (folder / "image.tar").write_bytes(data)
    store = Store(Home(folder / "home"))
    with store.lock():
        found = take_all(store, folder / "image.tar", None, lambda _size: None)
    assert all(store.find(each.reference) for each in found)
    assert {path.name for path in folder.iterdir()} == {"image.tar", "home"}


def labels(text: str, _folder: Path) -> None:
    assert all(isinstance(value, str) for value in parse_labels(text).values())


LISTED = LabImage("docker.io/library/nginx:1", (A, B), {A: 1, B: 2, C: 3}, own_build=True)


def listed(text: str, _folder: Path) -> None:
    found = from_json(text)
    assert from_json(json.dumps({"format": 1, "images": to_data(found)})) == found
    for each in found:
        assert each.on_node.files


def seen(text: str, _folder: Path) -> None:
    found = parse_seen(text)
    assert found is None or (found.free >= 0 and all(count >= 0 for count in found.lacks.values()))


TARGETS: tuple[Target, ...] = (
    Target(
        "reference to an image",
        ("lab.scenario.references:parse_reference",),
        _of("nginx", "ghcr.io/team/app:1.0", f"hub.lan:5000/a/b__c@sha256:{A}"),
        texts,
        reference,
        refuses=(ValueError,),  # documented; its callers word it
    ),
    Target(
        "source of images",
        ("lab.images.sources:parse_source",),
        _of("app.tar", "http://hub.lan:5000/app:1", "nginx"),
        texts,
        source,
    ),
    Target("manifest with images", ("lab.scenario.manifests:read_loosely",), _of(POD), texts, manifest),
    Target(
        "index.json of a layout",
        ("lab.images.archive:parse_layout",),
        _of(layout_files([(image(size=50), {CONTAINERD: "a/b:1"})])["index.json"].decode()),
        json_texts,
        layout,
        refuses=(ValueError,),  # documented; its callers word it
    ),
    Target(
        "manifest.json of docker save",
        ("lab.images.archive:parse_saved",),
        _of(saved_files(["a:1", "b:2"])["manifest.json"].decode()),
        json_texts,
        saved,
        refuses=(ValueError,),  # as above
    ),
    Target(
        "configuration of an image",
        ("lab.images.store:parse_platform",),
        _of('{"architecture": "arm64", "os": "linux", "config": {}}'),
        json_texts,
        platform,
        refuses=(ValueError,),  # as above
    ),
    Target(
        "labels of an image",
        ("lab.images.store:parse_labels",),
        _of('{"architecture": "amd64", "os": "linux", "config": {"Labels": {"a.b": "c", "d": "e"}}}'),
        json_texts,
        labels,
        refuses=(ValueError,),  # documented; its caller takes it for no own build
    ),
    Target("archive of images", (), archives, octets, archive, share=0.5),
    Target(
        "images of a lab",
        ("lab.images.record:from_json",),
        _of(json.dumps({"format": 1, "images": to_data([LISTED])})),
        json_texts,
        listed,
        refuses=(ValueError,),  # documented; its caller words it
    ),
    Target(
        "what a node has of images",
        ("lab.render.images:parse_seen",),
        _of(f"lacks {A} 100\nnamed docker.io/library/nginx:1\nfree 1000000\n"),
        texts,
        seen,
    ),
)
