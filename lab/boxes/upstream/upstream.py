"""What upstream publishes of one Kubernetes version, wherever it is taken from.

Programs: three, by their published checksums, and those that other projects publish in archives. Images: those of
Kubernetes' own registry and flannel's, by digest; etcdctl is in etcd's. All that comes is kept as a folder that is a
mirror itself, on a stick for example:

    FOLDER/dl.k8s.io/v1.35.4/bin/linux/amd64/kubeadm, kubeadm.sha256, ...
    FOLDER/github.com/containerd/containerd/releases/download/v2.3.7/containerd-2.3.7-linux-amd64.tar.gz, ...
    FOLDER/images/                                   an OCI layout, see `lab.boxes.upstream.layout`

Source: kubernetes.io/releases/download.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.boxes.upstream.addresses import (
    ARCHIVES,
    IMAGES,
    NETWORK_IMAGES,
    OPTIONAL,
    PROGRAMS,
    Addresses,
    Registry,
    Site,
)
from lab.boxes.upstream.checksum import ALGORITHMS, Checksum
from lab.boxes.upstream.files import PublishedFiles, unread
from lab.boxes.upstream.layout import Choice, Manifest, Shelf, parse_image
from lab.boxes.upstream.patience import ELSEWHERE, Patience, Tell
from lab.boxes.upstream.skopeo import Skopeo, is_busy
from lab.boxes.upstream.web import BEGUN, BUSY, Missing, Web
from lab.components.archives import Archive
from lab.errors import BoxError, LabError
from lab.waiting import thread

# The programs for nodes that upstream publishes by themselves.
PUBLISHED = frozenset({"kubeadm", "kubelet", "kubectl"})
_SUFFIXES = tuple(f".{algorithm}" for algorithm in ALGORITHMS)
PROBE_SECONDS = 5.0
PATIENT_PROBE_SECONDS = 30.0  # where there is no other source


@dataclass(frozen=True, slots=True)
class Found:
    """An image as it was found: its manifest, and its name without a tag where it is."""

    manifest: Manifest
    name: str


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The reason why something is not available.

    busy: the server itself asks to come again.
    name: upstream's own name of what cannot be had.
    """

    why: str
    busy: bool = False
    name: str = ""

    @property
    def optional(self) -> bool:
        """Whether klab can compile what is not had."""
        return self.name in OPTIONAL


class Upstream:
    """One Kubernetes version as upstream publishes it.

    Args:
        addresses: where it is taken from.
        version: 1.35.4.
        kept: the folder for what comes; it is a mirror for others.
        tell: told of pauses and of progress.
        patience: how long to wait.
    """

    def __init__(
        self, addresses: Addresses, version: str, kept: Path, tell: Tell, patience: Patience | None = None
    ) -> None:
        self.addresses = addresses
        self.shelf = Shelf(kept / "images")
        self._kept, self._tell = kept, tell
        self._path = f"v{version}/bin/linux/amd64"
        self._patience = patience or Patience()
        web = Web(tell, self._patience)
        self._skopeo = Skopeo(tell, self._patience)
        self._programs = PublishedFiles(addresses.programs, PROGRAMS, kept, web)
        self._archives = None if addresses.archives is None else PublishedFiles(addresses.archives, ARCHIVES, kept, web)

    # --- programs ----------------------------------------------------------------------------------

    def checksum(self, name: str) -> Checksum:
        """The published checksum of a program.

        Raises:
            BoxError: it cannot be had, or what is there is no checksum.
        """
        return self._programs.checksum(f"{self._path}/{name}", _SUFFIXES)

    def program(self, name: str) -> Path:
        """A program, with its published checksum.

        Raises:
            BoxError: it cannot be had, or is another one.
            HostError: the disk is full.
        """
        return self._programs.file(f"{self._path}/{name}", self.checksum(name))

    def archive_checksum(self, archive: Archive) -> Checksum | None:
        """The published checksum of an archive; None where the addresses have no place for archives, or not this one.

        Raises:
            BoxError: it cannot be had, or what is there is no checksum.
        """
        if self._archives is None:
            return None
        try:
            return self._archives.checksum(archive.path, [archive.suffix])
        except Missing:
            self._tell(f"{self._archives.where} has no {archive.name}")
            return None

    def archive(self, archive: Archive, wanted: Checksum) -> Path:
        """A whole archive, as `program`."""
        assert self._archives is not None  # noqa: S101 - its checksum came from there
        return self._archives.file(archive.path, wanted)

    # --- images ------------------------------------------------------------------------------------

    def image(self, ref: str) -> Found:
        """An image by its whole name, for Linux on x86-64.

        Raises:
            Missing: it is not there.
            BoxError: it cannot be had, or is damaged.
        """
        where = self._place(ref)
        if not isinstance(where, Registry):
            manifest = Shelf(where / "images").manifest(ref)
            if manifest is None:
                raise Missing(
                    f"{where / 'images'} has no {ref}",
                    hint="KLAB_HOME/cache/upstream of a machine that has built this version is such a folder",
                )
            return Found(manifest, ref)
        names = where.names(ref)
        for name in names[:-1]:
            try:
                return self._asked(where, name)
            except Missing:
                self._tell(f"{where.host} has no {name}; trying {names[-1]}")
        return self._asked(where, names[-1])

    def _place(self, ref: str) -> Registry | Path:
        where = self.addresses.of(ref)
        assert where is not None, ref  # noqa: S101 - klab packs such an image, and asks for it nowhere
        return where

    def _asked(self, registry: Registry, name: str) -> Found:
        bare = name.rpartition(":")[0]
        try:
            found = parse_image(self._skopeo.raw(registry, name))
            if isinstance(found, Choice):
                chosen = found.hex
                found = parse_image(self._skopeo.raw(registry, f"{bare}@sha256:{chosen}"))
                if isinstance(found, Choice) or found.hex != chosen:
                    raise ValueError(f"the manifest sha256:{chosen} is another one than its digest says")
        except ValueError as error:
            raise BoxError(f"{registry.host} gives no image {name}", details=[str(error)], hint=ELSEWHERE) from error
        return Found(found, bare)

    def fetch(self, ref: str, found: Found) -> None:
        """Put an image into `shelf`, unless it is there.

        Raises:
            BoxError: it cannot be had, or is damaged.
            HostError: the disk is full.
        """
        where, manifest = self._place(ref), found.manifest
        if not self.shelf.holds(manifest):
            came = self._kept / f"image{BEGUN}"
            try:
                if isinstance(where, Registry):
                    self._skopeo.copy(where, f"{found.name}@sha256:{manifest.hex}", came, manifest.size)
                else:
                    _copy_blobs(Shelf(where / "images"), manifest, came)
                self.shelf.take(ref, manifest, came)
            finally:
                shutil.rmtree(came, ignore_errors=True)
        self.shelf.name(ref, manifest)

    # --- is it there at all? -----------------------------------------------------------------------

    def obstacles(
        self, ref: str, seconds: float = PROBE_SECONDS, network: str = "", archive: Archive | None = None
    ) -> list[Obstacle]:
        """What keeps programs and images from being had, found out at once; nothing where nothing does.

        Args:
            ref: the whole name of an image to ask for.
            seconds: how long each of them may take, the look-up of a name included.
            network: the whole name of the pod network's image, asked for where the addresses have a place for it.
            archive: one to ask for where the addresses have a place for it.
        """
        addresses, path = self.addresses, f"{self._path}/kubeadm"
        acts = {
            PROGRAMS: lambda: _obstacle_to_file(self._programs, self._hasty(seconds), path, _SUFFIXES),
            IMAGES: lambda: self._obstacle_to_images(ref, seconds),
        }
        if addresses.network is not None:
            acts[NETWORK_IMAGES] = lambda: self._obstacle_to_images(network, seconds)
        if (archives := self._archives) is not None and archive is not None:
            suffixes = [archive.suffix]
            acts[ARCHIVES] = lambda: _obstacle_to_file(archives, self._hasty(seconds), archive.path, suffixes)
        found: dict[str, Obstacle | None] = dict.fromkeys(acts, Obstacle(f"no answer within {seconds:g} s"))

        def ask(name: str) -> None:
            found[name] = acts[name]()

        # A look-up of a name cannot be given a time limit: its thread may stay behind.
        probes = [thread(partial(ask, name), "klab probe", daemon=True) for name in acts]
        for probe in probes:
            probe.start()
        for probe in probes:
            probe.join(seconds + 1)
        shown = addresses.shown
        return [
            Obstacle(f"{shown[name]}: {each.why}", each.busy, name) for name, each in found.items() if each is not None
        ]

    def _hasty(self, seconds: float) -> Web:
        return Web(self._tell, Patience(connect=seconds, stall=seconds))

    def _obstacle_to_images(self, ref: str, seconds: float) -> Obstacle | None:
        where = self._place(ref)
        if not isinstance(where, Registry):
            return _obstacle_in_folder(where, ref)
        why = self._skopeo.obstacle(where, where.names(ref)[0], seconds)
        return Obstacle(why, is_busy(why)) if why else None


def _obstacle_to_file(files: PublishedFiles, web: Web, path: str, suffixes: Sequence[str]) -> Obstacle | None:
    """What keeps the checksum of a file from being had."""
    if not isinstance(files.where, Site):
        file = f"{files.name}/{path}"
        return None if (files.where / file).is_file() else Obstacle(f"there is no {file}")
    status = 0
    for suffix in suffixes:
        try:
            status = web.status(files.where.at(f"{path}{suffix}"))
        except LabError as error:
            return Obstacle(error.message)
        if status == 200:
            return None
    return Obstacle(f"HTTP status {status} for {path}{suffixes[-1]}", status in BUSY)


def _obstacle_in_folder(folder: Path, ref: str) -> Obstacle | None:
    if not (folder / "images" / "index.json").is_file():
        return Obstacle("there is no images/index.json")
    try:
        return None if Shelf(folder / "images").manifest(ref) else Obstacle(f"there is no {ref} in images")
    except BoxError as error:
        return Obstacle(error.message)


def _copy_blobs(source: Shelf, manifest: Manifest, came: Path) -> None:
    shutil.rmtree(came, ignore_errors=True)
    came.mkdir(parents=True)
    for blob in dict.fromkeys(manifest.blobs):
        try:
            shutil.copyfile(source.blobs / blob.hex, came / blob.hex)
        except OSError as error:
            raise unread(source.blobs / blob.hex, error) from error
