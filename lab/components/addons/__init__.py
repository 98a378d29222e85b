"""Add-ons that klab knows by name, one in each module."""

from __future__ import annotations

from collections.abc import Mapping

from lab.components.addons.base import Addon
from lab.components.registry import components


def addons() -> Mapping[str, Addon]:
    """Every add-on by its name, in the order of their names."""
    return components(__name__, Addon)
