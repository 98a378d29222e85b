"""Sizes as people write them: 2Gi, 2048, 30G, 1.5 GB.

G, GB, Gi and GiB all mean 1024 MiB here: people who write "2G" for a virtual machine
mean what every hypervisor means by it.
"""

from __future__ import annotations

import re

# Twelve digits: more than any disk has bytes, and no float overflows.
_SIZE = re.compile(r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(?:(?P<unit>[KMGT])i?B?)?", re.IGNORECASE)
_MIB = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024.0}


def parse_mib(value: object, *, default_unit: str) -> int:
    """A size in MiB, rounded up.

    Args:
        value: a number or text such as "2Gi"; without a unit it counts in `default_unit`.
        default_unit: one of K, M, G, T.

    Raises:
        ValueError: not a size, or not above zero.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("a size is needed; write for example 2Gi, 2048M or 30G")
    text = str(value).strip()
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a size; write for example 2Gi, 2048M or 30G")
    mib = float(match["number"]) * _MIB[(match["unit"] or default_unit).upper()]
    if mib <= 0:
        raise ValueError(f"{text[:40]!r}: a size must be above zero")
    return -int(-mib // 1)


def human(mib: int) -> str:
    """A size for people: 2560 -> "2.5 GiB", 512 -> "512 MiB"."""
    if mib < 1024:
        return f"{mib} MiB"
    return f"{mib / 1024:.1f}".removesuffix(".0") + " GiB"
