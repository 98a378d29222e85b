"""Building a box: the steps in order, each kept in the cache.

upstream    programs and images as upstream published them, where they come from there   cache/upstream/
programs    of upstream, or compiled        cache/programs/
debian      packages, configured            cache/debian/
layers      packages for images, unpacked   cache/layers/
images      one OCI layout                  cache/images/
root        all of it as one file system    (not kept)
disk        ... as a disk                   boxes/NAME@DIGEST/

A build reads what it is made of once, as it begins: the recipe from a copy, and klab's own modules as they were
imported. What is edited meanwhile is for the next build, and a box's inputs are those it was made of.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType

from lab import process
from lab.boxes import debian, disk, gomodules, images, registry, root, store, vagrant
from lab.boxes.cache import PARTIAL, Cache, digest_file, digest_tree, key_of
from lab.boxes.choice import Way, choose, ways
from lab.boxes.chroot import run_in
from lab.boxes.contents import list_contents
from lab.boxes.host import check_host, given_back
from lab.boxes.lock import Lock
from lab.boxes.manifest import (
    CONTENTS,
    DISK,
    KUBECTL,
    LIBVIRT,
    PACKAGES,
    Box,
    BoxFile,
    MadeFrom,
    describe_file,
    read_box,
    write_manifest,
)
from lab.boxes.recipe import ImageSpec, Program, Recipe, layer_of, load_recipe
from lab.boxes.sources import (
    GoModules,
    InArchive,
    InImage,
    Published,
    Source,
    is_in_etcds_image,
    is_published,
    without_published,
)
from lab.boxes.upstream import archives, layout
from lab.boxes.upstream.addresses import ARCHIVES, NETWORK_IMAGES, Addresses, is_network_image
from lab.boxes.upstream.upstream import PATIENT_PROBE_SECONDS, PROBE_SECONDS, Found, Obstacle, Upstream
from lab.components.archives import Archive, archive_of
from lab.components.kubernetes import packages
from lab.components.kubernetes.sources import AUTO
from lab.errors import BoxError, NotFound
from lab.reminder import repeating
from lab.scenario.catalog import Catalog
from lab.store import Home
from lab.waiting import background

Progress = Callable[[str], None]

# The modules that do the steps, and the digests of their files, read as they are imported: what is written into a
# file later is not what runs.
_STEPS = (debian, disk, gomodules, images, packages, registry, root, vagrant)
_DIGESTS = {module: digest_file(Path(str(module.__file__))) for module in (*_STEPS, archives, layout)}
REBUILD = f"rebuild{PARTIAL}"
UPSTREAM_FOLDER = "upstream"


def build_box(
    home: Home,
    catalog: Catalog,
    name: str,
    kubernetes: str,
    on_progress: Progress = lambda _: None,
    *,
    recipes: Path | None = None,
    rebuild: bool = False,
    source: str = AUTO,
    mirrors: Sequence[str] = (),
    lock: Lock | None = None,
) -> Box:
    """Build a box, or return the one that the same inputs made before. While another build is running it waits.

    Args:
        home: klab's folder; boxes and caches lie there.
        catalog: the boxes and versions there are.
        name: the recipe's name, for example debian-13.
        kubernetes: a full version, for example 1.35.4.
        on_progress: called with a short sentence as each step begins.
        recipes: the folder of recipes; by default klab's own.
        rebuild: take every step again, without klab's cache (Go's own still helps): an
            equal digest then shows that the build repeats.
        source: where Kubernetes comes from, one of `lab.components.kubernetes.sources`.
        mirrors: other addresses of upstream's programs and images, see `lab.boxes.upstream.addresses`.
        lock: what the box must be made from.

    Raises:
        NotFound: no such box or version.
        UsageError: source, mirrors and lock contradict one another.
        RootNeeded: not root.
        HostError: a program is missing, or the disk is too full.
        BoxError, ProgramError: a step failed; finished steps are kept.
    """
    if name not in catalog.boxes or kubernetes not in catalog.kubernetes:
        raise NotFound(
            f"there is no box {name} with Kubernetes {kubernetes}",
            hint=f"boxes: {', '.join(catalog.boxes)}; versions: {', '.join(catalog.kubernetes)}",
        )
    recipe = load_recipe(name, kubernetes, root=recipes)
    whole = Cache(home.cache)
    possible = ways(source, mirrors, lock)
    unused = [
        *([] if _network_image_of(recipe) else [NETWORK_IMAGES]),
        *([] if _archive_of(recipe) else [ARCHIVES]),
    ]
    possible = tuple(way.without(*unused) for way in possible)
    # Finding needs neither root nor free disk, and no server.
    if not rebuild and store.list_boxes(home):
        for way in (variant for each in possible for variant in each.variants):
            if found := _Build(home, recipe, whole, on_progress, way, lock).find():
                return found
    check_host(home)
    seconds = PROBE_SECONDS if len(possible) > 1 else PATIENT_PROBE_SECONDS
    way = choose(possible, partial(_obstacles, home, recipe, on_progress, seconds), on_progress)
    with repeating(on_progress) as tell, whole.lock(tell), given_back(home):
        whole.sweep()
        afresh, copies = home.cache / REBUILD, home.cache / f"recipe{PARTIAL}"
        try:
            # A build takes minutes, and an edited file would get into a box that says it is of the file before.
            for folder in recipe.folders:
                _copy(folder, copies / folder.name)
            recipe = load_recipe(name, kubernetes, root=copies)
            making = _Build(home, recipe, Cache(afresh) if rebuild else whole, tell, way, lock)
            # The build that was waited for may have made the very box.
            return (None if rebuild else making.find()) or making.run()
        finally:
            shutil.rmtree(copies, ignore_errors=True)
            shutil.rmtree(afresh, ignore_errors=True)


def _obstacles(home: Home, recipe: Recipe, tell: Progress, seconds: float, addresses: Addresses) -> list[Obstacle]:
    upstream = Upstream(addresses, recipe.kubernetes.version, home.cache / UPSTREAM_FOLDER, tell)
    return upstream.obstacles(recipe.kubernetes.image("pause"), seconds, _network_image_of(recipe), _archive_of(recipe))


def _network_image_of(recipe: Recipe) -> str:
    """The whole name of the pod network's image; empty where a box has none."""
    return next((image.ref for image in recipe.images if is_network_image(image.ref)), "")


def _archive_of(recipe: Recipe) -> Archive | None:
    """One of the archives that the recipe's programs are in."""
    return next(filter(None, (archive_of(each.module, each.version) for each in recipe.programs)), None)


def _copy(recipe: Path, target: Path) -> None:
    """Copy a recipe's folder; a link that leads nowhere is no part of it, such as the lock of an editor.

    Raises:
        BoxError: a file cannot be copied.
    """
    try:
        shutil.copytree(recipe, target, ignore_dangling_symlinks=True)
    except shutil.Error as error:
        raise BoxError(
            "the recipe's files cannot be copied",
            details=[f"{source}: {why}" for source, _, why in error.args[0]],
            hint="run the same command again; what stays in the way does not belong in the recipe's folder",
        ) from error


class _Build:
    """One build: the recipe, the caches, and the listener for progress."""

    def __init__(
        self, home: Home, recipe: Recipe, cache: Cache, on_progress: Progress, way: Way, lock: Lock | None
    ) -> None:
        gomodules.need_go()
        self.home = home
        self.recipe = recipe
        self.tell = on_progress
        self.cache = cache
        self.way = way
        self.lock = lock
        self.log = home.cache / "build.log"
        go = gomodules.toolchain(recipe.go, home.cache / "go")
        self._compilers = [gomodules.compiler(go), _first_line("gcc", "--version")]
        self._compiled: Source = GoModules(recipe.folder, go, self._compilers)
        self._upstream: Upstream | None = None
        if way.addresses is not None:
            self._upstream = Upstream(
                way.addresses, recipe.kubernetes.version, cache.root / UPSTREAM_FOLDER, on_progress
            )
            self.recipe = without_published(recipe, way.addresses)
        self._sources = debian.sources(recipe.suite)

    @property
    def inputs(self) -> str:
        """The key of everything that goes into the box, except what Debian's mirror and upstream hold today."""
        sources = sorted(source.split()[-2] for source in self._sources)
        parts: list[object] = [self.recipe.digest(), _code(*_STEPS), self._compilers, sources]
        if self.way.addresses is not None:
            parts += [self.way.source, self.way.addresses.shown, _code(archives, layout)]
        return key_of(*parts)

    def find(self) -> Box | None:
        """The box that these inputs made before.

        Raises:
            BoxError: it is damaged.
        """
        for box in store.list_boxes(self.home):
            # One that came with a bundle may say anything of what it was built from.
            if (
                not box.origin
                and box.inputs == self.inputs
                and box.name == self.recipe.box_name
                and self._is_locked(box)
            ):
                store.check_box(box)
                return box
        return None

    def _is_locked(self, box: Box) -> bool:
        """Whether a box is what the lock says; any is, without a lock."""
        if self.lock is None:
            return True
        wanted, made = self.lock.made_from, box.made_from
        return made is not None and (made.programs, made.images) == (wanted.programs, wanted.images)

    def run(self) -> Box:
        self.log.unlink(missing_ok=True)
        # Debian's mirror and its package manager leave a processor to the compiler.
        with background(self._debian) as system:
            try:
                programs = self._programs(system)
                images_of_box = self._images(programs)
            except BaseException:
                if not system.done():
                    self.tell("stopping when Debian's packages are there; they are kept for the next build")
                raise
        made_from = self._made_from(programs, images_of_box)
        work = self.home.cache / f"root{PARTIAL}"
        target = self.home.boxes / f"{self.recipe.box_name}{PARTIAL}"
        try:
            for folder in (work, target):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            self.tell("file system: configuring, importing images")
            root.assemble(self.recipe, system.result() / "root.tar", programs, images_of_box, work, log=self.log)
            return self._package(work, target, programs, made_from)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)

    def _programs(self, beside: Future[Path]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for program in self.recipe.programs:
            if beside.done():
                beside.result()  # its failure need not wait for the compiler
            source = self._source_of(program)
            key = key_of(asdict(program), *source.inputs(program), _code(*source.code))
            if not self.cache.has("programs", key):
                act = "compiling" if source is self._compiled else "fetching"
                self.tell(f"{act} {program.name} {program.version}".rstrip())

            def make(target: Path, source: Source = source, program: Program = program) -> None:
                source.make(program, target, self.log)

            folder = self.cache.step("programs", key, make)
            found |= {name: folder / "bin" / name for name in program.build}
        return found

    def _source_of(self, program: Program) -> Source:
        if self._upstream is None:
            return self._compiled
        if is_in_etcds_image(program):
            image = self._image_of_etcd(self._upstream)
            return image if image.holds(program) else self._compiled
        if archive := archive_of(program.module, program.version):
            checksum = self._upstream.archive_checksum(archive)
            return InArchive(archive, checksum, self._upstream) if checksum else self._compiled
        if not is_published(program):
            return self._compiled
        if self.lock is not None:  # before anything large comes
            for name in program.build:
                checksum = self._upstream.checksum(name)
                if checksum.algorithm == "sha256":
                    self.lock.check_program(name, checksum.hex, f"at {self._upstream.addresses.programs}")
        return Published(self._upstream)

    def _image_of_etcd(self, upstream: Upstream) -> InImage:
        ref = self.recipe.kubernetes.image("etcd")
        found = self._published_image(upstream, ref)
        if not upstream.shelf.holds(found.manifest):
            self.tell(f"fetching {ref}, which has etcdctl in it")
        upstream.fetch(ref, found)
        return InImage(found.manifest, upstream.shelf)

    def _debian(self) -> Path:
        key = key_of(self.recipe.suite, self.recipe.packages, self.recipe.epoch, _code(debian))
        if not self.cache.has("debian", key):
            self.tell(f"Debian {self.recipe.suite}: {len(self.recipe.packages)} packages and what they depend on")

        def make(target: Path) -> None:
            debian.make_root(
                target / "root.tar", self.recipe.suite, self.recipe.packages, self.recipe.epoch, log=self.log
            )

        return self.cache.step("debian", key, make)

    def _layer(self, packages: tuple[str, ...]) -> Path:
        suite, names = layer_of(packages, self.recipe.suite)
        key = key_of(suite, names, self.recipe.epoch, _code(debian, images))
        if not self.cache.has("layers", key):
            self.tell(f"packages for images: {' '.join(packages)}")

        def make(target: Path) -> None:
            unpacked = target / "packages.tar"
            debian.make_layer(unpacked, suite, names, self.recipe.epoch, log=self.log)
            busybox = target / "busybox"
            busybox.write_bytes(images.find_in_tar(unpacked, ["/bin/busybox"]))
            busybox.chmod(0o755)
            applets = process.run([busybox, "--list"], timeout=10).stdout.split()
            images.write_base_layer(unpacked, target / "layer.tar", self.recipe.epoch, applets)
            unpacked.unlink()
            busybox.unlink()

        return self.cache.step("layers", key, make) / "layer.tar"

    def _images(self, programs: dict[str, Path]) -> Path:
        published = self._published_images()
        packed = [spec for spec in self.recipe.images if spec.ref not in published]
        used = {spec.base for spec in packed}
        bases = {name: self._layer(packages) for name, packages in self.recipe.bases.items() if name in used}
        key = key_of(
            # Folders are named by their keys; where they lie is of no matter.
            [path.parent.name for path in bases.values()],
            [path.parent.parent.name for path in programs.values()],
            [asdict(spec) for spec in self.recipe.images],
            digest_tree(self.recipe.folder / "images"),
            self.recipe.epoch,
            _code(images),
            *([{ref: image.manifest.hex for ref, image in published.items()}, _code(layout)] if published else []),
        )
        if not self.cache.has("images", key):
            self.tell(f"packing {len(packed)} images" + (f", fetching {len(published)}" if published else ""))

        def make(target: Path) -> None:
            made = layout.MixedLayout(target, self.recipe.epoch)
            shared: dict[str, str] = {}
            for spec in self.recipe.images:
                if self._upstream is not None and (found := published.get(spec.ref)):
                    self._upstream.fetch(spec.ref, found)
                    made.add_upstream(spec.ref, found.manifest, self._upstream.shelf)
                else:
                    made.add_image(spec, self._image_layers(spec, bases, programs, made, shared, target))
            made.close()

        return self.cache.step("images", key, make)

    def _published_images(self) -> dict[str, Found]:
        """The manifests of the images that come from upstream, by whole name."""
        found: dict[str, Found] = {}
        if self._upstream is not None:
            for spec in self.recipe.images:
                if self._upstream.addresses.of(spec.ref):
                    found[spec.ref] = self._published_image(self._upstream, spec.ref)
        return found

    def _published_image(self, upstream: Upstream, ref: str) -> Found:
        found = upstream.image(ref)
        if self.lock is not None:
            self.lock.check_image(ref, f"sha256:{found.manifest.hex}", f"at {upstream.addresses.of(ref)}")
        return found

    def _made_from(self, programs: dict[str, Path], folder: Path) -> MadeFrom:
        """What the box is made from.

        Raises:
            BoxError: the lock says something else.
        """
        made = MadeFrom(
            source=self.way.source,
            addresses={} if self.way.addresses is None else self.way.addresses.shown,
            versions=self.recipe.kubernetes.as_data(),
            programs={name: digest_file(path) for name, path in sorted(programs.items())},
            images={image.ref: f"sha256:{image.manifest}" for image in images.read_layout(folder)},
        )
        if self.lock is not None:
            self.lock.check_all(made.programs, made.images)
        return made

    def _image_layers(
        self,
        spec: ImageSpec,
        bases: dict[str, Path],
        programs: dict[str, Path],
        made: images.Layout,
        shared: dict[str, str],
        work: Path,
    ) -> list[str]:
        layers = []
        if spec.base:
            if spec.base not in shared:
                copy = work / "base.tar"
                shutil.copyfile(bases[spec.base], copy)
                shared[spec.base] = made.add_layer(copy)
            layers.append(shared[spec.base])
        own = work / "own.tar"
        overlay = self.recipe.folder / spec.overlay if spec.overlay else None
        images.write_own_layer(spec, programs, overlay, own, self.recipe.epoch)
        return [*layers, made.add_layer(own)]

    def _package(self, work: Path, target: Path, programs: dict[str, Path], made_from: MadeFrom) -> Box:
        listed = run_in(work, "dpkg-query -W", timeout=60).stdout
        (target / PACKAGES).write_text(listed.replace("\t", " "))
        shutil.copyfile(programs[KUBECTL], target / KUBECTL)
        (target / KUBECTL).chmod(0o755)
        disk.clamp_dates(work, self.recipe.epoch)
        (target / CONTENTS).write_text(list_contents(work))
        self.tell("disk: file system and boot loader")
        raw = target / "disk.raw"
        cgroup_v1 = not self.recipe.kubernetes.features.cgroup_v2
        disk.write_raw(work, raw, self.recipe.epoch, cgroup_v1=cgroup_v1, log=self.log)
        disk.write_qcow2(raw, target / DISK, log=self.log)
        raw.unlink()
        self.tell("box file for Vagrant")
        vagrant.write_libvirt_box(target / DISK, target / LIBVIRT, disk.VIRTUAL_GIB * 1024)
        self.tell("digests")
        files = {path.name: describe_file(path) for path in sorted(target.iterdir())}
        return self._place(target, files, made_from)

    def _is_whole(self, place: Path) -> bool:
        try:
            store.verify(self.home, read_box(place))
        except BoxError:
            return False
        return True

    def _place(self, target: Path, files: dict[str, BoxFile], made_from: MadeFrom) -> Box:
        digest = files[DISK].sha256
        place = store.folder_of(self.home, self.recipe.box_name, digest)
        box = Box(
            name=self.recipe.box_name,
            digest=digest,
            inputs=self.inputs,
            kubernetes=self.recipe.kubernetes.version,
            recipe=self.recipe.name,
            created=time.time(),
            virtual_mib=disk.VIRTUAL_GIB * 1024,
            folder=place,
            files=files,
            made_from=made_from,
        )
        if self._is_whole(place):
            # The same bytes again: labs may be using the files that lie there. What came with a bundle lacks some.
            there = read_box(place).files
            for name in files.keys() - there.keys():
                (target / name).rename(place / name)
            box = replace(box, files={**files, **there})
        else:
            shutil.rmtree(place, ignore_errors=True)
            target.rename(place)
        write_manifest(box)
        return box


def _code(*modules: ModuleType) -> list[str]:
    """Digests of the modules that do a step, for its key: another version of klab may do it in another way."""
    return [_DIGESTS[module] for module in modules]


def _first_line(*argv: str) -> str:
    return process.run(list(argv), timeout=60).stdout.partition("\n")[0]
