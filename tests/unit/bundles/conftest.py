"""Exports of a lab of two fake machines."""

from support.desk import desk

__all__ = ["desk"]
