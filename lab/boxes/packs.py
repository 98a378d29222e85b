"""Images beside a box: of add-ons, compiled, and of lessons, packed from Debian packages; by the steps of a box build.

They have the box's compiler, dates and Debian layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.boxes.cache import Cache
from lab.boxes.host import check_host, given_back
from lab.boxes.making import Making, Progress
from lab.boxes.recipe import Pack, Recipe, load_own_builds, load_pack
from lab.reminder import repeating
from lab.scenario.references import Reference
from lab.store import Home

# Measured with the largest add-on: what Go keeps of its modules and compiles, the image twice.
SPACE_GIB = 5
# Measured with the largest image of a lesson: its packages, their layer, the image twice.
OWN_BUILD_GIB = 2


def build_pack(home: Home, pack: Pack, box: Recipe, on_progress: Progress, *, recipes: Path | None = None) -> Path:
    """Make an add-on's images, or find those that the same inputs made before. While a build is running it waits.

    Args:
        home: klab's folder; the caches lie there.
        pack: the add-on.
        box: the recipe whose compiler, dates and layers are used.
        on_progress: called with a short sentence as each step begins.
        recipes: the folder of recipes; by default klab's own.

    Returns:
        A folder with an OCI layout, in the cache.

    Raises:
        RootNeeded: not root.
        HostError: a program is missing, or the disk is too full.
        BoxError, ProgramError: a step failed; finished steps are kept.
    """
    return _built(home, load_pack(pack, box, root=recipes), SPACE_GIB, on_progress)


def build_own(
    home: Home, references: Sequence[Reference], box: Recipe, on_progress: Progress, *, recipes: Path | None = None
) -> Path:
    """Make images of lessons from Debian packages, or find them; nothing is compiled.

    Args:
        home: klab's folder; the caches lie there.
        references: their names, of repositories that `lab.boxes.recipe.own_builds` has.
        box: the recipe whose dates and layers are used.
        on_progress: called with a short sentence as each step begins.
        recipes: the folder of recipes; by default klab's own.

    Returns, raises:
        As `build_pack`.
    """
    return _built(home, load_own_builds(references, box, root=recipes), OWN_BUILD_GIB, on_progress)


def _built(home: Home, recipe: Recipe, gib: int, on_progress: Progress) -> Path:
    check_host(home, gib, compiles=bool(recipe.programs))
    cache = Cache(home.cache)
    with repeating(on_progress) as tell, cache.lock(tell), given_back(home):
        making = Making(recipe, cache, home.cache / "go", tell, home.cache / "build.log")
        return making.make_images(making.make_programs())
