"""Names and ids of snapshots, and which automatic ones may be removed. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence

from lab.errors import UsageError
from lab.snapshots.manifest import Manifest

# Words that follow `klab snapshot`, and so can be no names.
RESERVED = ("take", "rm", "rename", "prune", "verify")
AUTO_PREFIX = "auto-"
AUTO_KEPT = 3
# Bundles have such names, too.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_HINT = "letters, digits, dots, underscores and hyphens; it begins with a letter or digit; 63 at most"


def check_name(name: str) -> str:
    """The name again, if it is a valid snapshot name.

    Raises:
        UsageError: it is not.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a valid snapshot name", hint=NAME_HINT)
    if name in RESERVED:
        raise UsageError(
            f"{name!r} is a subcommand of klab snapshot, not a valid snapshot name", hint="choose another name"
        )
    return name


def made_id(now: float, random: str) -> str:
    """An id: when, in UTC, and a few random digits. `random` is lower-case hexadecimal."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{random}"


def made_name(now: float, taken: Collection[str], *, auto: bool = False) -> str:
    """A name from the time, by this machine's zone; a number follows where it is taken."""
    stem = (AUTO_PREFIX if auto else "") + time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def surplus_autos(manifests: Sequence[Manifest], kept: int = AUTO_KEPT, *, spared: Collection[str] = ()) -> list[str]:
    """The ids of automatic snapshots beyond the newest; the one in `spared` stays and does not count."""
    autos = sorted((m for m in manifests if m.auto and m.id not in spared), key=lambda m: m.created, reverse=True)
    return [m.id for m in autos[kept:]]


def surplus(manifests: Sequence[Manifest], kept: int) -> list[str]:
    """The ids of all but the newest snapshots."""
    newest = sorted(manifests, key=lambda m: m.created, reverse=True)
    return [m.id for m in newest[kept:]]
