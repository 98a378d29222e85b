"""The words of a command line that click does not take apart: [LAB] REST..., and durations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.errors import UsageError
from lab.text import shortened

if TYPE_CHECKING:
    from lab.cluster.lab import Lab

_DURATION = re.compile(r"(?:(?P<h>[0-9]+)h)?(?:(?P<m>[0-9]+)m)?(?:(?P<s>[0-9]+)s?)?")
LONGEST = 7 * 24 * 3600  # seconds


def lab_then(words: Sequence[str]) -> tuple[Lab, list[str]]:
    """Split `[LAB] REST...`: the first word is the lab's name where a lab has that name; errors as `Labs.find`."""
    from lab.app.labs import Labs

    labs = Labs()
    if words and words[0] in labs.names:
        return labs.find(words[0]), list(words[1:])
    return labs.find(), list(words)


def without_dashes(words: list[str]) -> list[str]:
    """The words after a leading `--`, which separates klab's from another program's."""
    return words[1:] if words[:1] == ["--"] else words


def seconds_in(duration: str | None) -> float | None:
    """Seconds in the value of an option that may be left out; errors as `parse_duration`."""
    return parse_duration(duration) if duration else None


def parse_duration(text: str) -> float:
    """Seconds in a duration such as 90, 90s, 20m or 1h30m.

    Raises:
        UsageError: it is not a duration, zero, or longer than a week.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = 0
    if match and text.strip():
        seconds = sum(_number(match[unit]) * factor for unit, factor in (("h", 3600), ("m", 60), ("s", 1)))
    shown = shortened(text, 40)
    if seconds <= 0:
        raise UsageError(f"{shown!r} is not a duration", hint="write for example 90s, 20m or 1h30m")
    if seconds > LONGEST:
        raise UsageError(f"{shown!r} is too long to wait", hint="at most 168h, which is a week")
    return float(seconds)


def _number(digits: str | None) -> int:
    """A number of which twelve digits say enough: Python refuses to read some thousand."""
    return int((digits or "").lstrip("0")[:12] or 0)


def unenforced(cni: str) -> str:
    """That NetworkPolicy objects have no effect, and what changes that."""
    from lab.components.addons import addons

    engines = [name for name, addon in addons().items() if addon.enforces_policies]
    remedy = f"; the add-on {' or '.join(engines)} enforces them" if engines else ""
    return f"NetworkPolicy objects are not enforced, since the pod network {cni} does not{remedy}"
