"""What servers of programs and images say, what skopeo prints of them, what a person says of mirrors and locks."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from fuzz.harness import Target
from fuzz.mutations import json_texts, texts

from lab.boxes.lock import lock_text, parse_lock, read_lock
from lab.boxes.upstream.addresses import Registry, parse_mirrors
from lab.boxes.upstream.checksum import parse_checksum
from lab.boxes.upstream.layout import REF_ANNOTATION, Shelf, parse_image
from lab.boxes.upstream.patience import parse_retry_after
from lab.boxes.upstream.skopeo import complaint, parse_pause, refuse
from lab.boxes.upstream.web import BrokenOffError, parse_range
from lab.errors import LabError
from lab.text import visible

REF = "registry.k8s.io/pause:3.10.1"
NOW = 1_700_000_000.0


def _of(*seeds: str) -> Callable[[Path], Sequence[str]]:
    return lambda _folder: seeds


def mirror(text: str, _folder: Path) -> None:
    found = parse_mirrors([text])
    assert "".join(found.shown.values()).isprintable() or isinstance(found.programs, Path)
    if isinstance(found.images, Registry):
        found.images.names(REF)


def checksum(text: str, _folder: Path) -> None:
    found = parse_checksum(text)
    assert parse_checksum(found.hex) == found


def retry_after(text: str, _folder: Path) -> None:
    found = parse_retry_after(text, NOW)
    assert found is None or 0 <= found < 1 << 40


def content_range(text: str, _folder: Path) -> None:
    found = parse_range(text)
    assert found is None or 0 <= found < 1 << 60


def log(text: str, _folder: Path) -> None:
    for line in text.splitlines():
        assert 0 <= parse_pause(line) <= 60
    why = complaint(text)
    assert visible(why) == why
    with contextlib.suppress(LabError, BrokenOffError):
        refuse(Registry("hub.example"), "hub.example/pause:3.10.1", why)


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"digest": f"sha256:{'aa' * 32}", "size": 10},
        "layers": [{"digest": f"sha256:{'bb' * 32}", "size": 20}],
    }
)
INDEX = json.dumps(
    {
        "manifests": [
            {"digest": f"sha256:{'cc' * 32}", "size": 1, "platform": {"os": "linux", "architecture": each}}
            for each in ("arm64", "amd64")
        ]
    }
)


def image(text: str, _folder: Path) -> None:
    found = parse_image(text)
    assert len(found.hex) == 64


def layouts(_folder: Path) -> list[str]:
    digest = hashlib.sha256(MANIFEST.encode()).hexdigest()
    entry = {"digest": f"sha256:{digest}", "size": len(MANIFEST), "annotations": {REF_ANNOTATION: REF}}
    return [json.dumps({"schemaVersion": 2, "manifests": [entry]})]


def layout(text: str, folder: Path) -> None:
    shelf = Shelf(folder / "images")
    shelf.blobs.mkdir(parents=True)
    (shelf.blobs / hashlib.sha256(MANIFEST.encode()).hexdigest()).write_text(MANIFEST)
    (shelf.folder / "index.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = shelf.manifest(REF)
    if found is not None:
        assert not shelf.holds(found)
        shelf.name("a/b:c", found)
        assert shelf.manifest("a/b:c") == found


LOCK = {
    "format": 1,
    "box": "debian-13",
    "kubernetes": "1.35.4",
    "made_from": {
        "source": "release",
        "addresses": {"dl.k8s.io": "https://dl.k8s.io"},
        "versions": {"version": "1.35.4"},
        "programs": {"kubeadm": "ab" * 32},
        "images": {REF: f"sha256:{'cd' * 32}"},
    },
}


def lock(text: str, folder: Path) -> None:
    file = folder / "lock.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = read_lock(file)
    assert parse_lock(lock_text(found)) == found
    found.check_all(found.made_from.programs, found.made_from.images)


TARGETS: tuple[Target, ...] = (
    Target(
        "--mirror",
        ("lab.boxes.upstream.addresses:parse_mirrors",),
        _of("/media/stick", "dl.k8s.io=https://me:x@files.example/k8s", "registry.k8s.io=http://10.0.0.5:5000/k8s"),
        texts,
        mirror,
    ),
    Target(
        "published checksum",
        ("lab.boxes.upstream.checksum:parse_checksum",),
        _of(f"{'ab' * 32}  kubeadm\n", "cd" * 64),
        texts,
        checksum,
        refuses=(ValueError,),  # documented; its caller words it
    ),
    Target(
        "Retry-After",
        ("lab.boxes.upstream.patience:parse_retry_after",),
        _of("120", "Wed, 21 Oct 2026 07:28:00 GMT"),
        texts,
        retry_after,
    ),
    Target(
        "Content-Range",
        ("lab.boxes.upstream.web:parse_range",),
        _of("bytes 200-999/1000", "bytes 200-999/*"),
        texts,
        content_range,
    ),
    Target(
        "skopeo's log",
        ("lab.boxes.upstream.skopeo:parse_pause", "lab.boxes.upstream.skopeo:complaint"),
        _of(
            'level=debug msg="Too many requests to https://hub.example/v2/: sleeping for 4.5 seconds before next"\n'
            r'level=fatal msg="Error parsing image name \"docker://x\": manifest unknown"'
        ),
        texts,
        log,
    ),
    Target(
        "image manifest",
        ("lab.boxes.upstream.layout:parse_image",),
        _of(MANIFEST, INDEX),
        json_texts,
        image,
        refuses=(ValueError,),  # documented; its callers word it
    ),
    Target(
        "folder of images",
        ("lab.boxes.upstream.layout:parse_index", "lab.boxes.upstream.layout:Shelf.manifest"),
        layouts,
        json_texts,
        layout,
    ),
    Target(
        "lock of a box",
        ("lab.boxes.lock:parse_lock", "lab.boxes.lock:read_lock"),
        _of(json.dumps(LOCK)),
        json_texts,
        lock,
    ),
)
