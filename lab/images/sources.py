"""Where images come from: a file, a folder, a registry, a box. All of them end in the store.

Registries are asked by skopeo, which knows logins (`skopeo login HOST`), proxies, and the CAs of SSL_CERT_FILE.
A mirror that a scenario names for a registry is asked first. An image by a tag comes as the index that the tag names
and the image for the nodes' platform, bytes as the registry has them: both digests stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.boxes.manifest import Box
from lab.boxes.registry import REPOSITORIES
from lab.boxes.store import check_box
from lab.boxes.upgrade import extract_registry
from lab.boxes.upstream.addresses import Registry
from lab.boxes.upstream.layout import Choice, Manifest, parse_image
from lab.boxes.upstream.patience import Patience
from lab.boxes.upstream.skopeo import Advices, Skopeo, is_unreachable
from lab.boxes.upstream.web import Missing
from lab.errors import BoxError, ImageError, NotFound, Remedy, UsageError
from lab.images.archive import FORMS, SAVE, is_place, refuse_full, take_all
from lab.images.store import Image, Store, image_of, small_text, wrong_platform
from lab.scenario.references import PLAIN, Reference, parse_reference
from lab.scenario.sizes import human
from lab.text import shortened, visible
from lab.waiting import map_parallel

Tell = Callable[[str], None]
PROBE_SECONDS = 10.0
_REGISTRIES_AT_ONCE = 4
PATIENCE = Patience(stall=60.0, give_up=90.0)
_LATER = "run the same command again later; what has come is kept"
ADVICES = Advices(
    full=(Remedy("image prune"), " removes those that no lab has; KLAB_HOME names a folder on a larger disk"),
    missing="compare name and tag with the registry's own page; a name without a registry is docker.io's",
    elsewhere=_LATER,
    plain=lambda _registry, name: f"say so, if you trust the network: {PLAIN}{name}",
    refused=lambda registry, _name: (
        "the name may be wrong, for registries say the same of what is private and what is not there; else "
        f"skopeo login {registry.host}, or ",
        *SAVE,
    ),
)


@dataclass(frozen=True, slots=True)
class Source:
    """What a person names: a file or folder, or an image of a registry. `plain`: the registry has no TLS."""

    word: str
    path: Path | None = None
    reference: Reference | None = None
    plain: bool = False


def parse_source(word: str) -> Source:
    """What a word of `klab image load` means.

    Raises:
        UsageError: it is neither a path nor an image.
    """
    if is_place(word):
        try:
            return Source(word, path=Path(word).expanduser())
        except RuntimeError:
            raise UsageError(f"{visible(word)} names a user that does not exist", hint="write the path out") from None
    plain = word.startswith(PLAIN)
    text = word.removeprefix(PLAIN).removeprefix("https://").removeprefix("docker://")
    try:
        return Source(word, reference=parse_reference(text), plain=plain)
    except ValueError as error:
        raise UsageError(str(error), hint=FORMS) from None


@dataclass(frozen=True, slots=True)
class Sources:
    """The ways into the store.

    Args:
        store: the images that this machine keeps.
        tell: told of progress and pauses.
        mirrors: the URL of a mirror by registry, as a scenario has them.
        patience: how long to wait for a registry.
        ask_again: ask the registry for an image that is here, too: a tag may have moved.
    """

    store: Store
    tell: Tell
    mirrors: Mapping[str, str] = field(default_factory=dict)
    patience: Patience = PATIENCE
    ask_again: bool = False

    def take(self, sources: Sequence[Source], name: Reference | None = None) -> list[Image]:
        """Have every image of these in the store.

        Raises:
            NotFound, UsageError, ImageError, HostError: as `lab.images.archive.take_all`; a registry does not have an
                image, refuses it, or does not answer. What has come until then stays.
        """
        if name is not None and (len(sources) != 1 or sources[0].path is None):
            raise UsageError("--name is for one file or folder", hint="an image of a registry keeps its name")
        found: list[Image] = []
        with self.store.lock():
            for source in sources:
                if source.path is not None:
                    found += take_all(self.store, source.path, name, self._meter(source.path))
                elif source.reference is not None:
                    found.append(self._of_registry(source.reference, plain=source.plain))
        return list({image.reference: image for image in found}.values())

    def _meter(self, path: Path) -> Callable[[int], None]:
        total = path.stat().st_size if path.is_file() else 0
        done, told = 0, 0

        def count(size: int) -> None:
            nonlocal done, told
            done += size
            if done - told >= 64 << 20:
                told = done
                self.tell(f"reading {path.name}: {human(done >> 20)} of {human(max(total, done) >> 20)}")

        return count

    # --- registries -------------------------------------------------------------------------------

    def _of_registry(self, reference: Reference, *, plain: bool) -> Image:
        if not self.ask_again and (kept := self.store.find(reference)):
            return kept
        skopeo = Skopeo(self.tell, self.patience, ADVICES)
        *mirrors, upstream = self._places(reference, plain=plain)
        for registry, name in mirrors:
            try:
                return self._fetched(skopeo, registry, name, reference)
            except ImageError as error:
                self.tell(f"{error.message}; trying {upstream[0].host}")
        return self._fetched(skopeo, *upstream, reference)

    def _places(self, reference: Reference, *, plain: bool = False) -> list[tuple[Registry, str]]:
        """The registries that may have an image, each with its name there without tag and digest."""
        found = []
        if mirror := self.mirrors.get(reference.registry):
            scheme, _, rest = mirror.partition("://")
            host, _, path = rest.rstrip("/").partition("/")
            below = "/".join(filter(None, (host, path.removeprefix("v2").strip("/"))))
            found.append((Registry(below, plain=scheme == "http"), f"{below}/{reference.repository}"))
        return [*found, (Registry(reference.registry, plain=plain), reference.name)]

    def _fetched(self, skopeo: Skopeo, registry: Registry, name: str, reference: Reference) -> Image:
        try:
            image = self._asked(skopeo, registry, name, reference)
            missing = sum(blob.size for blob in image.manifest.blobs if not self.store.has(blob))
            refuse_full(self.store, missing)
            with self.store.incoming() as came:
                if missing:
                    self.tell(f"fetching {reference}, {human(max(1, missing >> 20))}")
                    skopeo.copy(registry, f"{name}@sha256:{image.manifest.hex}", came / "image", image.manifest.size)
                self.store.take(image, came / "image")
        except BoxError as error:
            kind = NotFound if isinstance(error, Missing) else ImageError
            raise kind(error.message, details=error.details, hint=error.hint) from error
        return image

    def _asked(self, skopeo: Skopeo, registry: Registry, name: str, reference: Reference) -> Image:
        try:
            first = skopeo.raw(registry, f"{name}{str(reference).removeprefix(reference.name)}")
            found = image_of(reference, [first])
            if isinstance(found, Choice):
                found = image_of(reference, [first, skopeo.raw(registry, f"{name}@sha256:{found.hex}")])
        except ValueError as error:
            if "linux/amd64" in str(error):
                raise wrong_platform(str(reference), str(error)) from error
            raise ImageError(
                f"{registry.host} gives no image {reference}",
                details=[visible(shortened(str(error)))],
                hint="compare name and tag with the registry's own page",
            ) from error
        assert not isinstance(found, Choice)  # noqa: S101 - two texts were given
        return found

    def obstacles(self, references: Sequence[Reference], seconds: float = PROBE_SECONDS) -> dict[Reference, str]:
        """What keeps each image from being had of its registry or mirror, asked once; empty where nothing does.

        A registry that does not answer is asked for one image only.
        """
        by_registry: dict[str, list[Reference]] = {}
        for each in references:
            by_registry.setdefault(each.registry, []).append(each)

        def ask_all(registry: str) -> dict[Reference, str]:
            found: dict[Reference, str] = {}
            dead = ""
            for reference in by_registry[registry]:
                found[reference] = dead or self._obstacle(reference, seconds)
                dead = dead or (found[reference] if is_unreachable(found[reference]) else "")
            return found

        answers = map_parallel(ask_all, list(by_registry), most=_REGISTRIES_AT_ONCE)
        return {reference: why for each in answers.values() for reference, why in each.items()}

    def _obstacle(self, reference: Reference, seconds: float) -> str:
        why = ""
        for registry, name in self._places(reference):
            whole = f"{name}{str(reference).removeprefix(reference.name)}"
            why = Skopeo(self.tell, self.patience, ADVICES).obstacle(registry, whole, seconds)
            if not why:
                break
        return why

    # --- a box ------------------------------------------------------------------------------------

    def take_from_box(self, box: Box, references: Sequence[Reference]) -> list[Image]:
        """Have images of a box in the store, taken out of its disk.

        Raises:
            BoxError: the box is damaged.
            NotFound: it has no such image; the hint names those it has.
            HostError, ProgramError: its disk cannot be read.
        """
        check_box(box)
        with self.store.lock(), self.store.incoming() as came:
            self.tell(f"reading the images of the box {box.name}")
            refuse_full(self.store, box.virtual_mib << 18)  # of the raw disk only what is used: about a quarter
            storage = extract_registry(box.disk, came)
            return [self._of_storage(box, storage, each) for each in references]

    def _of_storage(self, box: Box, storage: Path, reference: Reference) -> Image:
        folder = storage / REPOSITORIES / reference.name / "_manifests"
        revision = f"revisions/sha256/{reference.hex}"
        link = folder / (revision if reference.hex else f"tags/{reference.tag}/current")
        blobs = storage / REPOSITORIES.parent / "blobs" / "sha256"

        def blob(name: str) -> Path:
            return blobs / name[:2] / name / "data"

        try:
            digest = (link / "link").read_text(encoding="ascii").strip().removeprefix("sha256:")
            manifest = parse_image(small_text(blob(digest)))
        except FileNotFoundError:
            raise NotFound(
                f"the box {box.name} has no image {reference}",
                details=[f"it has {name}" for name in _tagged(storage)],
                hint=(Remedy("box list"), " lists the boxes"),
            ) from None
        except ValueError as error:
            raise BoxError(
                f"the registry in the box {box.name} is damaged",
                details=[visible(shortened(str(error)))],
                hint=(Remedy("box verify"), " tells whether the box is whole"),
            ) from error
        if not isinstance(manifest, Manifest):
            raise wrong_platform(str(reference), "the box has an index in its place")
        image = Image(reference, manifest)
        place = storage.parent / "image"
        place.mkdir(exist_ok=True)
        for each in manifest.blobs:
            if not self.store.has(each) and blob(each.hex).is_file():
                blob(each.hex).replace(place / each.hex)
        self.store.take(image, place)
        return image


def _tagged(storage: Path) -> list[str]:
    """The images of a registry's storage, by whole name, as it was taken out of a disk."""
    root = storage / REPOSITORIES
    tags = sorted(root.glob("**/_manifests/tags/*"))
    return [f"{tag.parents[2].relative_to(root)}:{tag.name}" for tag in tags]
