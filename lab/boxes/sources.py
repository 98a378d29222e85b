"""Where a box's programs come from: Go modules and the few C files of a recipe, or upstream, which publishes some.

Each source is a class with the same three answers. What upstream has decides which programs are still to be compiled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol

from lab.boxes import gomodules
from lab.boxes.cache import digest_tree
from lab.boxes.recipe import SETTLE, Program, Recipe
from lab.boxes.upstream import archives, layout
from lab.boxes.upstream.addresses import Addresses
from lab.boxes.upstream.checksum import Checksum
from lab.boxes.upstream.layout import Manifest, Shelf
from lab.boxes.upstream.upstream import PUBLISHED, Upstream
from lab.components.archives import Archive

# Go's linker leaves the work to the system's, which is for programs that are partly C (go tool link).
EXTERNAL = "-linkmode=external"


class Source(Protocol):
    """Makes a recipe's programs.

    code: klab's own modules by which it does; a program is made again when one of them changes.
    """

    @property
    def code(self) -> tuple[ModuleType, ...]: ...

    def inputs(self, program: Program) -> Sequence[object]:
        """What decides the result beside the program's entry in the recipe, as values for a cache's key."""

    def make(self, program: Program, target: Path, log: Path) -> None:
        """Make one program.

        Args:
            program: the recipe's entry.
            target: an empty folder; gets `bin/NAME` for each of `program.build`.
            log: file that the output is appended to.

        Raises:
            HostError: this machine lacks what the source needs.
            BoxError: the program cannot be had.
        """


@dataclass(frozen=True, slots=True)
class GoModules:
    """Compiles Go modules, and C files of the recipe.

    `folder` is the recipe's, `go` the variables of `gomodules.toolchain`, `compilers` what the compilers say they are.
    """

    folder: Path
    go: Mapping[str, str]
    compilers: Sequence[str]
    code: ClassVar[tuple[ModuleType, ...]] = (gomodules,)

    def inputs(self, program: Program) -> Sequence[object]:
        places = [place for place in (program.main, str(Path(program.c).parent) if program.c else "") if place]
        return [self.compilers, [digest_tree(self.folder / place) for place in places]]

    def make(self, program: Program, target: Path, log: Path) -> None:
        gomodules.build(program, self.folder, target, go=self.go_for(program), log=log)

    def go_for(self, program: Program) -> dict[str, str]:
        """The go command's variables for one program: C is compiled only for what the recipe links externally."""
        return {**self.go, **({"CGO_ENABLED": "1"} if EXTERNAL in program.linker else {})}


@dataclass(frozen=True, slots=True)
class Published:
    """Takes from upstream what upstream publishes. Checksums alone decide the result."""

    upstream: Upstream
    code: ClassVar[tuple[ModuleType, ...]] = ()

    def inputs(self, program: Program) -> Sequence[object]:
        return ["published", {name: asdict(self.upstream.checksum(name)) for name in program.build}]

    def make(self, program: Program, target: Path, log: Path) -> None:  # noqa: ARG002
        (target / "bin").mkdir()
        for name in program.build:
            place = target / "bin" / name
            os.link(self.upstream.program(name), place)
            place.chmod(0o755)


@dataclass(frozen=True, slots=True)
class InImage:
    """Takes programs out of one of upstream's images, whose digest decides the result."""

    manifest: Manifest
    shelf: Shelf
    code: ClassVar[tuple[ModuleType, ...]] = (layout,)

    def inputs(self, program: Program) -> Sequence[object]:  # noqa: ARG002
        return ["in an image", self.manifest.hex]

    def make(self, program: Program, target: Path, log: Path) -> None:  # noqa: ARG002
        (target / "bin").mkdir()
        for name in program.build:
            data = self.shelf.file(self.manifest, f"usr/local/bin/{name}")
            assert data is not None, name  # noqa: S101 - `holds` has looked
            (target / "bin" / name).write_bytes(data)
            (target / "bin" / name).chmod(0o755)

    def holds(self, program: Program) -> bool:
        """Whether the image has every one of a program's parts."""
        return all(self.shelf.file(self.manifest, f"usr/local/bin/{name}") for name in program.build)


@dataclass(frozen=True, slots=True)
class InArchive:
    """Takes programs out of the archive that their project publishes, whose checksum decides the result."""

    archive: Archive
    checksum: Checksum
    upstream: Upstream
    code: ClassVar[tuple[ModuleType, ...]] = (archives,)

    def inputs(self, program: Program) -> Sequence[object]:  # noqa: ARG002
        return ["in an archive", asdict(self.checksum)]

    def make(self, program: Program, target: Path, log: Path) -> None:  # noqa: ARG002
        file = self.upstream.archive(self.archive, self.checksum)
        (target / "bin").mkdir()
        for name in program.build:
            place = target / "bin" / name
            place.write_bytes(archives.unpack(file, f"{self.archive.folder}{name}"))
            place.chmod(0o755)


def without_published(recipe: Recipe, addresses: Addresses) -> Recipe:
    """The recipe with those programs alone that are compiled, or published, where upstream's images are taken."""
    packed = [name for image in recipe.images if not addresses.of(image.ref) for _, name in image.programs]
    wanted = {SETTLE, *packed, *(name for _, name in recipe.install)}
    reduced = (
        replace(program, build={name: path for name, path in program.build.items() if name in wanted})
        for program in recipe.programs
    )
    return replace(recipe, programs=tuple(program for program in reduced if program.build))


def is_in_etcds_image(program: Program) -> bool:
    """Whether etcd's image may have every one of a program's parts: etcdctl; in newer ones etcdutl, too."""
    return program.build.keys() <= {"etcdctl", "etcdutl"}


def is_published(program: Program) -> bool:
    """Whether upstream publishes every one of a program's parts."""
    return program.build.keys() <= PUBLISHED
