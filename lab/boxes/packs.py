"""The images of an add-on, compiled by the steps of a box build, with its compiler and its Debian layers."""

from __future__ import annotations

from pathlib import Path

from lab.boxes.cache import Cache
from lab.boxes.host import check_host, given_back
from lab.boxes.making import Making, Progress
from lab.boxes.recipe import Pack, Recipe, load_pack
from lab.reminder import repeating
from lab.store import Home

# Measured with the largest add-on: what Go keeps of its modules and compiles, the image twice.
SPACE_GIB = 5


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
    check_host(home, SPACE_GIB)
    recipe = load_pack(pack, box, root=recipes)
    cache = Cache(home.cache)
    with repeating(on_progress) as tell, cache.lock(tell), given_back(home):
        making = Making(recipe, cache, home.cache / "go", tell, home.cache / "build.log")
        return making.make_images(making.make_programs())
