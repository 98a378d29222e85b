"""Programs that were compiled for the default box; they run on the host as well.

The build cache may hold those of several Kubernetes versions, and of earlier recipes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.app.boxes import DEFAULT_BOX
from lab.boxes import store
from lab.boxes.cache import digest_file
from lab.components.kubernetes import DEFAULT
from lab.store import Home


def default_box_program(name: str) -> Path:
    """The program of that name that went into the default box: the one in the cache with the digest it was given there.

    Args:
        name: kubeadm, etcd, kube-apiserver...
    """
    home = Home.default()
    for box in store.list_boxes(home):
        if (box.recipe, box.kubernetes) != (DEFAULT_BOX, DEFAULT) or box.origin or box.made_from is None:
            continue
        for file in home.cache.glob(f"programs/*/bin/{name}"):
            if digest_file(file) == box.made_from.programs.get(name):
                return file
    pytest.fail(f"no {name} was compiled here for a box of {DEFAULT}; klab box build --source source makes one")
