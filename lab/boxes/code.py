"""The digests of klab's own modules that make boxes: another version of klab may do a step in another way."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from lab.boxes import debian, disk, gomodules, images, registry, root, vagrant
from lab.boxes.cache import digest_file
from lab.boxes.upstream import archives, layout
from lab.components.kubernetes import packages

# The modules that do the steps of every box.
STEPS = (debian, disk, gomodules, images, packages, registry, root, vagrant)
# Read as they are imported: what is written into a file later is not what runs.
_DIGESTS = {module: digest_file(Path(str(module.__file__))) for module in (*STEPS, archives, layout)}


def code_of(*modules: ModuleType) -> list[str]:
    """Digests of the modules that do a step, for its key."""
    return [_DIGESTS[module] for module in modules]
