"""Container images from programs and Debian packages, as one OCI image layout.

Layers stay uncompressed: a node under emulation would spend seconds on each, and the
same file then serves containerd's store and the node's registry.

Shapes: github.com/opencontainers/image-spec (image-layout.md, manifest.md, config.md).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.boxes.cache import digest_file
from lab.boxes.recipe import ImageSpec
from lab.errors import BoxError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What `ctr images import` names an image by (containerd, pkg/images/annotations).
NAME_ANNOTATION = "io.containerd.image.name"

_USR_MERGED = ("bin", "lib", "lib64", "sbin")
_LEFT_OUT = tuple(
    f"usr/share/{name}/" for name in ("doc", "man", "locale", "info", "lintian", "bash-completion", "bug", "menu")
)
# What is written when the package of CAs is configured: all of them in one file, which OpenSSL and curl read.
_CAS, _BUNDLE = "usr/share/ca-certificates/", "etc/ssl/certs/ca-certificates.crt"
# Upstream's own changelogs begin in other ways.
_ENTRY = re.compile(rb"[a-z0-9][a-z0-9+.-]{0,100} \(([0-9A-Za-z.+:~-]{1,100})\) ")
_DIRECTORIES = {"etc": 0o755, "root": 0o700, "run": 0o755, "tmp": 0o1777, "var": 0o755, "var/tmp": 0o1777}


@dataclass(frozen=True, slots=True)
class Stored:
    """One image in a layout: its full reference and the blobs it consists of (hex digests)."""

    ref: str
    manifest: str
    config: str
    layers: tuple[str, ...]


class Layout:
    """An OCI image layout being written: FOLDER/blobs/sha256/HEX, index.json, oci-layout."""

    def __init__(self, folder: Path, epoch: int) -> None:
        self.folder = folder
        self.epoch = epoch
        self._blobs = folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        self._index: list[dict[str, Any]] = []

    def add_layer(self, file: Path) -> str:
        """Move a layer tar into the layout; returns its digest in hex."""
        digest = digest_file(file)
        file.replace(self._blobs / digest)
        return digest

    def add_image(self, spec: ImageSpec, layers: Sequence[str]) -> None:
        """Write configuration and manifest of an image of layers that are already there."""
        created = datetime.fromtimestamp(self.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = self._add_json(_config(spec, layers, created))
        manifest = self._add_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._descriptor(CONFIG, config),
                "layers": [self._descriptor(LAYER, layer) for layer in layers],
            }
        )
        tag = spec.ref.rpartition(":")[2]
        annotations = {NAME_ANNOTATION: spec.ref, "org.opencontainers.image.ref.name": tag}
        self._index.append({**self._descriptor(MANIFEST, manifest), "annotations": annotations})

    def close(self) -> None:
        """Write what makes the folder a layout."""
        index = {"schemaVersion": 2, "manifests": self._index}
        (self.folder / "index.json").write_text(_json(index))
        (self.folder / "oci-layout").write_text(_json({"imageLayoutVersion": "1.0.0"}))
        # For `docker load`, which takes a layout only since 25 (moby, image/spec/spec.md, "Combined Image JSON").
        listed = [
            {"Config": _blob(image.config), "RepoTags": [image.ref], "Layers": [_blob(layer) for layer in image.layers]}
            for image in read_layout(self.folder)
        ]
        (self.folder / "manifest.json").write_text(json.dumps(listed))

    def _add_json(self, value: Mapping[str, Any]) -> str:
        data = _json(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return digest

    def _descriptor(self, kind: str, digest: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": (self._blobs / digest).stat().st_size}


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def read_layout(folder: Path) -> list[Stored]:
    """Every image of a layout.

    Raises:
        BoxError: it is not a layout, or a blob is missing.
    """
    try:
        index = json.loads((folder / "index.json").read_text())
        found = []
        for entry in index["manifests"]:
            digest = entry["digest"].removeprefix("sha256:")
            manifest = json.loads((folder / "blobs" / "sha256" / digest).read_text())
            found.append(
                Stored(
                    ref=entry["annotations"][NAME_ANNOTATION],
                    manifest=digest,
                    config=manifest["config"]["digest"].removeprefix("sha256:"),
                    layers=tuple(layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]),
                )
            )
    except (OSError, ValueError, KeyError) as error:
        raise BoxError("the images in the cache are damaged", details=[f"{folder}: {error!r}"]) from error
    return found


def write_base_layer(
    source: Path, target: Path, epoch: int, applets: Iterable[str] = (), leave_out: Iterable[str] = ()
) -> None:
    """A layer of a tar of unpacked Debian packages, without files whose paths begin as one of `leave_out`.

    Adds the links of a merged /usr, without which no program finds its loader, a link
    to busybox for each of `applets` that no package brings, and the file with the CAs of ca-certificates.
    """
    with tarfile.open(source) as packages, _writer(target) as layer:
        names, certificates = set(), b""
        unwanted = (*_LEFT_OUT, *leave_out)
        named = [(_merged(member.name.removeprefix("./").rstrip("/")), member) for member in packages.getmembers()]
        for name, member in sorted(named, key=lambda each: each[0]):
            if member.isdev() or name in ("", ".", *_USR_MERGED) or f"{name}/".startswith(unwanted):
                continue
            if member.isdir() and name in names:
                continue
            member.name = name
            if member.islnk():
                member.linkname = _merged(member.linkname.removeprefix("./"))
            names.add(member.name)
            if name.startswith(_CAS) and member.isreg() and (content := packages.extractfile(member)):
                certificates += content.read()
            _add(layer, member, packages.extractfile(member) if member.isreg() else None, epoch)
        if certificates:
            _add_file(layer, _BUNDLE, certificates, epoch)
        for name in _USR_MERGED:
            _add_link(layer, name, f"usr/{name}", epoch)
        for name in sorted(set(applets)):
            if not names & {f"usr/{place}/{name}" for place in ("bin", "sbin")}:
                _add_link(layer, f"usr/bin/{name}", "busybox", epoch)


def _merged(name: str) -> str:
    """A path of a package where a merged /usr has it: packages of Debian 12 still have files below lib/."""
    first, separator, _ = name.partition("/")
    return f"usr/{name}" if separator and first in _USR_MERGED else name


def write_own_layer(
    spec: ImageSpec, programs: Mapping[str, Path], overlay: Path | None, target: Path, epoch: int
) -> None:
    """A layer of one image's own: its programs, links, empty folders and the recipe's files, by their modes there."""
    files = {place.lstrip("/"): (programs[name], 0o755) for place, name in spec.programs}
    if overlay is not None:
        given = (p for p in overlay.rglob("*") if p.is_file())
        files |= {p.relative_to(overlay).as_posix(): (p, 0o755 if p.stat().st_mode & 0o100 else 0o644) for p in given}
    owners = {place.lstrip("/"): owner for place, owner in spec.folders}
    directories = _DIRECTORIES | dict.fromkeys(owners, 0o755)
    for name in (*files, *owners, *(place.lstrip("/") for place, _ in spec.links)):
        for parent in Path(name).parents:
            if parent.name:
                directories.setdefault(parent.as_posix(), 0o755)
    with _writer(target) as layer:
        for name, mode in sorted(directories.items()):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, mode
            member.uid = member.gid = owners.get(name, 0)
            _add(layer, member, None, epoch)
        for name, (file, mode) in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, file.stat().st_size
            with file.open("rb") as content:
                _add(layer, member, content, epoch)
        for place, to in spec.links:
            _add_link(layer, place.lstrip("/"), to, epoch)


def versions_in(source: Path, packages: Iterable[str]) -> dict[str, str]:
    """The versions of Debian packages in a tar of them, by what their changelogs begin with.

    A package without one is passed over. Their form: deb-changelog(5).
    """
    places = {
        f"usr/share/doc/{name}/{file}.gz": name for name in packages for file in ("changelog", "changelog.Debian")
    }
    found = {}
    with tarfile.open(source) as unpacked:
        for member in unpacked:
            name = places.get(member.name.removeprefix("./"), "")
            content = unpacked.extractfile(member) if name and member.isreg() else None
            if content is not None and (given := _ENTRY.match(gzip.decompress(content.read()))):
                found[name] = given[1].decode()
    return found


def find_in_tar(source: Path, endings: Iterable[str]) -> bytes:
    """The content of the first file of a tar whose path ends so.

    Raises:
        BoxError: there is none.
    """
    wanted = tuple(endings)
    with tarfile.open(source) as packages:
        for member in packages:
            content = packages.extractfile(member) if member.isreg() and member.name.endswith(wanted) else None
            if content is not None:
                return content.read()
    raise BoxError(f"no package brought {' or '.join(wanted)}")


def _config(spec: ImageSpec, layers: Sequence[str], created: str) -> dict[str, Any]:
    run: dict[str, Any] = {"Env": [PATH]}
    optional = {
        "Entrypoint": list(spec.entrypoint),
        "Cmd": list(spec.command),
        "User": spec.user,
        "ExposedPorts": {port: {} for port in spec.ports},
        "StopSignal": spec.stop_signal,
        "WorkingDir": spec.workdir,
        "Labels": dict(spec.labels),
    }
    return {
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {**run, **{key: value for key, value in optional.items() if value}},
        # Uncompressed, a layer's own digest is its diff id.
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in layers]},
        "history": [{"created": created, "created_by": "klab box build"} for _ in layers],
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _writer(target: Path) -> tarfile.TarFile:
    return tarfile.open(target, "w", format=tarfile.PAX_FORMAT)


def _add(layer: tarfile.TarFile, member: tarfile.TarInfo, content: io.IOBase | Any, epoch: int) -> None:
    member.mtime = min(int(member.mtime) or epoch, epoch)
    member.uid = member.uid or 0
    member.uname = member.gname = ""
    member.pax_headers = {}
    layer.addfile(member, content)


def _add_file(layer: tarfile.TarFile, name: str, content: bytes, epoch: int) -> None:
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o644, len(content)
    _add(layer, member, io.BytesIO(content), epoch)


def _add_link(layer: tarfile.TarFile, name: str, to: str, epoch: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, to, 0o777
    _add(layer, member, None, epoch)
