"""Pod networks, by the names that a scenario's `kubernetes.cni` gives them."""

from __future__ import annotations

from collections.abc import Mapping

from lab.components.cni.base import PodNetwork
from lab.components.registry import components

DEFAULT = "flannel"


def networks() -> Mapping[str, PodNetwork]:
    """Every pod network that klab knows, by name."""
    return components(__name__, PodNetwork)


def network(name: str) -> PodNetwork:
    """The pod network of that name.

    Raises:
        KeyError: klab does not know it.
    """
    return networks()[name]
