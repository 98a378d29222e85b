"""Small images, and the files and folders in which people hand them on."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONTAINERD = "io.containerd.image.name"
REF = "org.opencontainers.image.ref.name"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def layer_tar(name: str, size: int = 2000) -> bytes:
    """An uncompressed layer with one file, whose bytes belong to its name."""
    block, content = name.encode(), b""
    while len(content) < size:
        block = hashlib.sha256(block).digest()
        content += block
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = size
        tar.addfile(member, io.BytesIO(content[:size]))
    return raw.getvalue()


@dataclass
class Made:
    """Blobs by SHA-256 in hex, and the digests of an image: what its name stands for, and its manifest."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    top: str = ""
    manifest: str = ""

    def add(self, data: bytes) -> str:
        self.blobs[sha(data)] = data
        return sha(data)


def image(
    layers: Sequence[str] = ("base", "app"),
    *,
    machine: str = "amd64",
    indexed: bool = False,
    size: int = 2000,
    labels: Mapping[str, str] | None = None,
) -> Made:
    """An image of gzipped layers; `indexed`: named by an index that names another platform's as well, not there."""
    made = Made()
    tars = [layer_tar(name, size) for name in layers]
    packed = [gzip.compress(each, mtime=0) for each in tars]
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": ["/app"], **({"Labels": dict(labels)} if labels else {})},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(each)}" for each in tars]},
    }

    def descriptor(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{made.add(data)}", "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, json.dumps(config).encode()),
        "layers": [descriptor(LAYER, each) for each in packed],
    }
    own = descriptor(MANIFEST, json.dumps(manifest).encode())
    made.top = made.manifest = own["digest"].removeprefix("sha256:")
    if indexed:
        other = {"mediaType": MANIFEST, "digest": f"sha256:{'ab' * 32}", "size": 10}
        entries = [
            {**other, "platform": {"os": "linux", "architecture": "arm64"}},
            {**own, "platform": {"os": "linux", "architecture": machine}},
        ]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        made.top = made.add(json.dumps(index).encode())
    return made


def layout_files(images: Sequence[tuple[Made, Mapping[str, str]]]) -> dict[str, bytes]:
    """The files of an OCI layout by path; images with their annotations."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    entries = []
    for made, notes in images:
        files |= {f"blobs/sha256/{name}": data for name, data in made.blobs.items()}
        kind = INDEX if made.top != made.manifest else MANIFEST
        size = len(made.blobs[made.top])
        entries.append({"mediaType": kind, "digest": f"sha256:{made.top}", "size": size, "annotations": dict(notes)})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return files


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(file: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def saved_files(
    tags: Sequence[str] | None, layers: Sequence[str] = ("base", "app"), machine: str = "amd64"
) -> dict[str, bytes]:
    """What docker save wrote before it wrote layouts: by path."""
    tars = {f"{name}/layer.tar": layer_tar(name) for name in layers}
    diffs = [f"sha256:{sha(each)}" for each in tars.values()]
    config = json.dumps(
        {"architecture": machine, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}}
    ).encode()
    listed = [{"Config": f"{sha(config)}.json", "RepoTags": tags, "Layers": list(tars)}]
    return {**tars, f"{sha(config)}.json": config, "manifest.json": json.dumps(listed).encode()}
