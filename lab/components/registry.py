"""Components by name: each module of a package whose COMPONENT is of the package's kind."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

Kind = TypeVar("Kind")


@functools.cache
def components(package: str, kind: type[Kind]) -> Mapping[str, Kind]:
    """The components in a package by name, sorted.

    Args:
        package: such as "lab.components.cni"; its module `base` is passed over.
        kind: the class of its components.

    Raises:
        TypeError: a module holds no component of that kind under its own name, with "_" for each "-".
    """
    found: dict[str, Kind] = {}
    modules = {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)}
    for module in sorted(modules - {"base"}):
        component = getattr(importlib.import_module(f"{package}.{module}"), "COMPONENT", None)
        name = getattr(component, "name", "")
        if not isinstance(component, kind) or name.replace("-", "_") != module:
            raise TypeError(f"{package}.{module} holds no {kind.__name__} called {module!r}")
        found[name] = component
    return MappingProxyType(found)
