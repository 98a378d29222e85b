"""Container runtimes, by the names that a scenario's `kubernetes.runtime` gives them."""

from __future__ import annotations

from collections.abc import Mapping

from lab.components.registry import components
from lab.components.runtime.base import ContainerRuntime

DEFAULT = "containerd"


def runtimes() -> Mapping[str, ContainerRuntime]:
    """Every container runtime that klab knows, by name."""
    return components(__name__, ContainerRuntime)


def runtime(name: str) -> ContainerRuntime:
    """The container runtime of that name.

    Raises:
        KeyError: klab does not know it.
    """
    return runtimes()[name]
