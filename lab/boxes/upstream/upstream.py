"""What upstream publishes of one Kubernetes version, wherever it is taken from.

Programs: three, by their published checksums. Images: those of Kubernetes' own registry and flannel's, by digest;
etcdctl is in etcd's. All that comes is kept as a folder that is a mirror itself, on a stick for example:

    FOLDER/dl.k8s.io/v1.35.4/bin/linux/amd64/kubeadm, kubeadm.sha256, ...
    FOLDER/images/                                   an OCI layout, see `lab.boxes.upstream.layout`

Source: kubernetes.io/releases/download.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.boxes.upstream.addresses import IMAGES, NETWORK_IMAGES, PROGRAMS, Addresses, Registry, Site
from lab.boxes.upstream.checksum import ALGORITHMS, MOST, Checksum, parse_checksum
from lab.boxes.upstream.layout import Choice, Manifest, Shelf, parse_image
from lab.boxes.upstream.patience import ELSEWHERE, Patience, Tell
from lab.boxes.upstream.skopeo import Skopeo, is_busy
from lab.boxes.upstream.web import BEGUN, BUSY, FULL, Missing, Web
from lab.errors import BoxError, LabError, refusal
from lab.files import write_atomic
from lab.text import shortened, visible
from lab.waiting import thread

# The programs for nodes that upstream publishes by themselves.
PUBLISHED = frozenset({"kubeadm", "kubelet", "kubectl"})
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
    optional: klab can compile what is not had.
    """

    why: str
    busy: bool = False
    optional: bool = False


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
        self._web = Web(tell, self._patience)
        self._skopeo = Skopeo(tell, self._patience)
        self._checksums: dict[str, Checksum] = {}

    # --- programs ----------------------------------------------------------------------------------

    def checksum(self, name: str) -> Checksum:
        """The published checksum of a program.

        Raises:
            BoxError: it cannot be had, or what is there is none.
        """
        if name not in self._checksums:
            self._checksums[name] = self._checksum(name)
        return self._checksums[name]

    def _checksum(self, name: str) -> Checksum:
        for algorithm in ALGORITHMS:
            try:
                text = self._small(f"{self._path}/{name}.{algorithm}")
            except Missing:
                if algorithm == ALGORITHMS[-1]:
                    raise
                continue
            try:
                found = parse_checksum(text)
            except ValueError as error:
                raise BoxError(
                    f"{self.addresses.programs} gives no checksum of {name}",
                    details=[visible(shortened(text.strip(), 100))],
                    hint="the page of a portal may want a login first; or take another --mirror",
                ) from error
            write_atomic(self._file(f"{name}.{found.algorithm}"), f"{found.hex}\n")
            return found
        raise AssertionError(name)

    def program(self, name: str) -> Path:
        """A program, with its published checksum.

        Raises:
            BoxError: it cannot be had, or is another one.
            HostError: the disk is full.
        """
        wanted, target = self.checksum(name), self._file(name)
        if wanted.fits(target):
            return target
        where = self.addresses.programs
        if isinstance(where, Site):
            self._web.file(where.at(f"{self._path}/{name}"), target, wanted)
        else:
            self._copied(where / PROGRAMS / self._path / name, target, wanted)
        return target

    def _file(self, name: str) -> Path:
        return self._kept / PROGRAMS / self._path / name

    def _small(self, path: str) -> str:
        where = self.addresses.programs
        if isinstance(where, Site):
            return self._web.text(where.at(path), MOST)
        file = where / PROGRAMS / path
        try:
            with file.open("rb") as source:
                return source.read(MOST).decode("utf-8", "replace")
        except OSError as error:
            raise _unread(file, error) from error

    def _copied(self, file: Path, target: Path, wanted: Checksum) -> None:
        begun = target.with_name(f"{target.name}{BEGUN}")
        begun.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, begun)
        except OSError as error:
            raise _unread(file, error) from error
        if (found := wanted.of(begun)) != wanted.hex:
            begun.unlink()
            raise BoxError(
                f"{file} is not what was published",
                details=[
                    f"published: {wanted.algorithm} {wanted.hex}",
                    f"found:     {wanted.algorithm} {found}",
                ],
                hint="copy the folder again",
            )
        begun.replace(target)

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

    def obstacles(self, ref: str, seconds: float = PROBE_SECONDS, network: str = "") -> list[Obstacle]:
        """What keeps programs and images from being had, found out at once; nothing where nothing does.

        Args:
            ref: the whole name of an image to ask for.
            seconds: how long each of them may take, the look-up of a name included.
            network: the whole name of the pod network's image, asked for where the addresses have a place for it.
        """
        found: dict[str, Obstacle | None] = dict.fromkeys(
            self.addresses.shown, Obstacle(f"no answer within {seconds:g} s")
        )

        def programs() -> None:
            found[PROGRAMS] = self._obstacle_to_programs(seconds)

        def images() -> None:
            found[IMAGES] = self._obstacle_to_images(ref, seconds)

        def of_network() -> None:
            found[NETWORK_IMAGES] = self._obstacle_to_images(network, seconds)

        # A look-up of a name cannot be given a time limit: its thread may stay behind.
        acts = (programs, images, of_network) if NETWORK_IMAGES in found else (programs, images)
        probes = [thread(act, "klab probe", daemon=True) for act in acts]
        for probe in probes:
            probe.start()
        for probe in probes:
            probe.join(seconds + 1)
        shown = self.addresses.shown
        return [
            Obstacle(f"{shown[name]}: {each.why}", each.busy, optional=name == NETWORK_IMAGES)
            for name, each in found.items()
            if each is not None
        ]

    def _obstacle_to_programs(self, seconds: float) -> Obstacle | None:
        where, path = self.addresses.programs, f"{self._path}/kubeadm"
        if not isinstance(where, Site):
            return None if (where / PROGRAMS / path).is_file() else Obstacle(f"there is no {PROGRAMS}/{path}")
        hasty = Web(self._tell, Patience(connect=seconds, stall=seconds))
        status = 0
        for algorithm in ALGORITHMS:
            try:
                status = hasty.status(where.at(f"{path}.{algorithm}"))
            except LabError as error:
                return Obstacle(error.message)
            if status == 200:
                return None
        return Obstacle(f"HTTP status {status} for {path}.{ALGORITHMS[-1]}", status in BUSY)

    def _obstacle_to_images(self, ref: str, seconds: float) -> Obstacle | None:
        where = self._place(ref)
        if not isinstance(where, Registry):
            return _obstacle_in_folder(where, ref)
        why = self._skopeo.obstacle(where, where.names(ref)[0], seconds)
        return Obstacle(why, is_busy(why)) if why else None


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
            raise _unread(source.blobs / blob.hex, error) from error


def _unread(file: Path, error: OSError) -> LabError:
    """The error for a file of a mirror that cannot be copied."""
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return Missing(
            f"there is no file {file}",
            hint="a mirror may lack this version; KLAB_HOME/cache/upstream of a machine that has built it has all",
        )
    return refusal(error, hint=FULL) or BoxError(
        f"{file} cannot be copied", details=[str(error)], hint="is the stick still in?"
    )
