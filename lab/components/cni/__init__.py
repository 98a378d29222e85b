"""Pod networks, by the names that a scenario's `kubernetes.cni` gives them."""

from __future__ import annotations

from collections.abc import Mapping

from lab.components.cni.base import PodNetwork
from lab.components.registry import components

DEFAULT = "flannel"
# Networks that a person may look for here, and why klab does not have them.
LEFT_OUT = {
    "cilium": "its upstream makes its objects with Helm or its own program only; "
    "say cni: none, and install it when the nodes are there",
}


def networks() -> Mapping[str, PodNetwork]:
    """Every pod network that klab knows, by name."""
    return components(__name__, PodNetwork)


def network(name: str) -> PodNetwork:
    """The pod network of that name.

    Raises:
        KeyError: klab does not know it.
    """
    return networks()[name]
