"""A recipe's programs and images, made step by step; each step's result is kept in the cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path

from lab import process
from lab.boxes import debian, gomodules, images
from lab.boxes.cache import Cache, digest_tree, key_of
from lab.boxes.code import code_of
from lab.boxes.lock import Lock
from lab.boxes.recipe import ImageSpec, Program, Recipe, layer_of
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
from lab.boxes.upstream import layout
from lab.boxes.upstream.upstream import Found, Upstream
from lab.components.archives import archive_of

Progress = Callable[[str], None]
PACKAGES_LABEL = "dev.klab.packages"
_VERSIONS = "versions"  # beside the layer of a base


class Making:
    """Makes what a recipe says.

    Args:
        recipe: what to make.
        cache: where each step's result is kept.
        go_caches: the folder for what Go downloads and compiles, as `gomodules.toolchain` has it.
        on_progress: called with a short sentence as each step begins.
        log: file that all output is appended to.
        upstream: what upstream publishes is taken from there; everything is compiled where it is None.
        lock: what upstream's parts must be.
    """

    def __init__(
        self,
        recipe: Recipe,
        cache: Cache,
        go_caches: Path,
        on_progress: Progress,
        log: Path,
        upstream: Upstream | None = None,
        lock: Lock | None = None,
    ) -> None:
        self.recipe = recipe if upstream is None else without_published(recipe, upstream.addresses)
        self.cache = cache
        self.tell = on_progress
        self.log = log
        self.lock = lock
        self._upstream = upstream
        go, self.compilers = _compilers(recipe, go_caches)
        self._compiled: Source = GoModules(recipe.folder, go, self.compilers)

    def make_programs(self, beside: Future[Path] | None = None) -> dict[str, Path]:
        """Make the recipe's programs; returns where each lies.

        `beside`: work that runs meanwhile; where it has failed, this ends as well.
        """
        found: dict[str, Path] = {}
        for program in self.recipe.programs:
            if beside is not None and beside.done():
                beside.result()  # its failure need not wait for the compiler
            source = self._source_of(program)
            key = key_of(asdict(program), *source.inputs(program), code_of(*source.code))
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

    def _layer(self, base: str) -> Path:
        packages, leave_out = self.recipe.bases[base], self.recipe.leave_out.get(base, ())
        suite, names = layer_of(packages, self.recipe.suite)
        key = key_of(suite, names, leave_out, self.recipe.epoch, code_of(debian, images), _VERSIONS)
        if not self.cache.has("layers", key):
            self.tell(f"packages for images: {' '.join(packages)}")

        def make(target: Path) -> None:
            unpacked = target / "packages.tar"
            debian.make_layer(unpacked, suite, names, self.recipe.epoch, log=self.log)
            busybox = target / "busybox"
            busybox.write_bytes(images.find_in_tar(unpacked, ["/bin/busybox"]))
            busybox.chmod(0o755)
            applets = process.run([busybox, "--list"], timeout=10).stdout.split()
            images.write_base_layer(unpacked, target / "layer.tar", self.recipe.epoch, applets, leave_out)
            versions = images.versions_in(unpacked, names)
            (target / _VERSIONS).write_text(
                ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
            )
            unpacked.unlink()
            busybox.unlink()

        return self.cache.step("layers", key, make) / "layer.tar"

    def make_images(self, programs: Mapping[str, Path]) -> Path:
        """Make the recipe's images; returns an OCI layout."""
        published = self._published_images()
        packed = [spec for spec in self.recipe.images if spec.ref not in published]
        used = {spec.base for spec in packed}
        bases = {name: self._layer(name) for name in self.recipe.bases if name in used}
        overlays = [spec.overlay for spec in self.recipe.images if spec.overlay]
        key = key_of(
            # Folders are named by their keys; where they lie is of no matter.
            [path.parent.name for path in bases.values()],
            [path.parent.parent.name for path in programs.values()],
            [asdict(spec) for spec in self.recipe.images],
            {each: digest_tree(self.recipe.folder / each) for each in overlays},
            self.recipe.epoch,
            code_of(images),
            *([{ref: image.manifest.hex for ref, image in published.items()}, code_of(layout)] if published else []),
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
                    layers = self._image_layers(spec, bases, programs, made, shared, target)
                    made.add_image(_labelled(spec, bases), layers)
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

    def _image_layers(
        self,
        spec: ImageSpec,
        bases: dict[str, Path],
        programs: Mapping[str, Path],
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


def _compilers(recipe: Recipe, go_caches: Path) -> tuple[dict[str, str], list[str]]:
    """Go's variables, and what the compilers say they are; nothing for a recipe with nothing to compile."""
    if not recipe.programs:
        return {}, []
    gomodules.need_go()
    go = gomodules.toolchain(recipe.go, go_caches)
    return go, [gomodules.compiler(go), first_line("gcc", "--version")]


def _labelled(spec: ImageSpec, bases: Mapping[str, Path]) -> ImageSpec:
    """An image that has labels, with one more that names the packages of its base."""
    if not spec.labels or not spec.base:
        return spec
    versions = (bases[spec.base].parent / _VERSIONS).read_text()
    return replace(spec, labels=(*spec.labels, (PACKAGES_LABEL, versions)))


def first_line(*argv: str) -> str:
    """The first line that a program prints."""
    return process.run(list(argv), timeout=60).stdout.partition("\n")[0]
