"""Images beside a box: of add-ons, compiled, and of lessons, packed from Debian packages; by the steps of a box build.

They have the box's compiler, dates and Debian layers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.boxes.cache import Cache, digest_file, key_of
from lab.boxes.host import check_host, given_back
from lab.boxes.images import LAYER
from lab.boxes.making import Making, Progress
from lab.boxes.recipe import Pack, Recipe, load_own_builds, load_pack
from lab.reminder import repeating
from lab.scenario.references import Reference
from lab.store import Home

# Measured with the largest add-on: what Go keeps of its modules and compiles, the image twice.
SPACE_GIB = 5
_BLOBS = Path("blobs") / "sha256"
_LEVEL = 6
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
        made = making.make_images(making.make_programs())
        return cache.step("packed", key_of(made.name, _LEVEL), lambda target: compress(made, target))


def compress(layout: Path, target: Path) -> None:
    """Pack the layers of a layout by gzip, since each node gets them over ssh; equal ones give equal ones.

    Args:
        layout: a folder with an OCI layout of plain layers.
        target: an empty folder, which becomes one of packed layers.
    """
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    packed: dict[str, dict[str, Any]] = {}
    index = json.loads((layout / "index.json").read_text())
    for entry in index["manifests"]:
        manifest = json.loads((layout / _BLOBS / _hex(entry)).read_text())
        for layer in manifest["layers"]:
            if _hex(layer) not in packed:
                packed[_hex(layer)] = _packed(layout / _BLOBS / _hex(layer), blobs)
        manifest["layers"] = [packed[_hex(layer)] for layer in manifest["layers"]]
        config = _hex(manifest["config"])
        shutil.copyfile(layout / _BLOBS / config, blobs / config)
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        entry |= {"digest": f"sha256:{hashlib.sha256(text).hexdigest()}", "size": len(text)}
        (blobs / _hex(entry)).write_bytes(text)
    (target / "index.json").write_text(json.dumps(index))
    shutil.copyfile(layout / "oci-layout", target / "oci-layout")


def _packed(layer: Path, blobs: Path) -> dict[str, Any]:
    """Write a layer packed among the blobs; returns its descriptor."""
    place = blobs / "layer"
    with layer.open("rb") as source, gzip.GzipFile(place, "wb", compresslevel=_LEVEL, mtime=0) as file:
        shutil.copyfileobj(source, file, 1 << 20)
    digest, size = digest_file(place), place.stat().st_size
    place.rename(blobs / digest)
    return {"mediaType": f"{LAYER}+gzip", "digest": f"sha256:{digest}", "size": size}


def _hex(descriptor: dict[str, Any]) -> str:
    return str(descriptor["digest"]).removeprefix("sha256:")
