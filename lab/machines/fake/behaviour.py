"""How fake machines behave, as a test sets it when it makes their provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How fake machines behave.

    `answers` maps a command of ssh, joined by blanks, to exit code and output. The guests of the nodes in
    `stubborn` do not hear the power button. `foreign`: a machine of another lab has the name of theirs
    belong. `free` are the bytes left for captures, `version` is that of the emulator. `instead` maps the name of a
    method, of the machines, their captures or their disk transfer, to what is called in its place, with the
    object first.
    """

    answers: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    stubborn: frozenset[str] = frozenset()
    foreign: bool = False
    free: int = 1 << 40
    version: str = "1"
    instead: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def applied(self, thing: T) -> T:
        """An object of the fake's, with what is called in place of its own methods."""
        for name, act in self.instead.items():
            if hasattr(type(thing), name):
                setattr(thing, name, partial(act, thing))
        return thing
