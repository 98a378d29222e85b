"""Where a box's programs come from. One source today: Go modules, and the few C files of a recipe.

A second one (Debian packages, an archive of released programs) is a class with the same three answers, and a key of the
recipe that chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol

from lab.boxes import gomodules
from lab.boxes.cache import digest_tree
from lab.boxes.recipe import Program


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
        gomodules.build(program, self.folder, target, go=self.go, log=log)
