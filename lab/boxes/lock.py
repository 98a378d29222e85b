"""A box's lock: a file with every program's SHA-256 and every image's digest, which a build must meet.

The SHA-256 of the disk is in it for bundles, which hold a disk and nothing else. A build need not meet it: Debian's
packages are those of the day.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import records
from lab.boxes.manifest import DIGEST, Box, MadeFrom, build_command, check_made_from
from lab.components.kubernetes.versions import FULL_VERSION
from lab.errors import Advice, BoxError, Conflict, Remedy, UsageError
from lab.files import read_limited
from lab.text import shortened, visible

SUFFIX = ".lock.json"
_FORMAT = 1
_MOST = 1 << 20  # bytes
_GET_AGAIN: Advice = ("get the file again, or write it where the box is: ", Remedy("box lock"))


@dataclass(frozen=True, slots=True)
class Lock:
    """What a build must meet: the recipe's name, the Kubernetes version, and what is to come out.

    `disk` is the SHA-256 of the disk that a bundle must have; empty in a lock of an older klab.
    """

    box: str
    kubernetes: str
    made_from: MadeFrom
    disk: str = ""

    def check_program(self, name: str, found: str, where: str) -> None:
        """Make sure that a program is the one in the lock.

        Args:
            name: the program.
            found: its SHA-256 in hex.
            where: where it was found, for a person.

        Raises:
            BoxError: it is another one; both digests are named.
        """
        _compare(f"the program {name}", self.made_from.programs.get(name), found, where)

    def check_image(self, ref: str, found: str, where: str) -> None:
        """Make sure that an image is the one in the lock; as `check_program`."""
        _compare(f"the image {ref}", self.made_from.images.get(ref), found, where)

    def check_all(self, programs: Mapping[str, str], images: Mapping[str, str]) -> None:
        """Make sure that there are just those programs and images that the lock names.

        Raises:
            BoxError: one is another, is missing or is surplus.
        """
        for name, digest in programs.items():
            self.check_program(name, digest, "built now")
        for ref, digest in images.items():
            self.check_image(ref, digest, "packed now")
        for name in (*self.made_from.programs, *self.made_from.images):
            if name not in programs and name not in images:
                raise BoxError(f"the lock names {name}, which this build does not have", hint=_ANOTHER)


_ANOTHER = "the recipe, a server or a compiler is another than when the lock was written; without --locked it is built"


def _compare(what: str, locked: str | None, found: str, where: str) -> None:
    if locked is None:
        raise BoxError(f"the lock does not name {what}", details=[f"{where}: {found}"], hint=_ANOTHER)
    if locked != found:
        raise BoxError(
            f"{what} is not the one in the lock",
            details=[f"in the lock: {locked}", f"{where}: {found}"],
            hint=_ANOTHER,
        )


def lock_of(box: Box) -> Lock:
    """The lock of a box.

    Raises:
        Conflict: nobody wrote down what it was made from, or it is a cloud image.
    """
    if not box.kubernetes:
        raise Conflict(
            f"the box {box.name} ({box.short}) is made of a cloud image, in which is no program and no image to lock",
            hint="compare the SHA-256 of the file with its publisher's: all who have the same file make the same box",
        )
    if box.made_from is None:
        raise Conflict(
            f"the box {box.name} ({box.short}) does not say what it was made from",
            details=["it came with a bundle, or an older klab built it"],
            hint=build_command(box.recipe, box.kubernetes, "--rebuild"),
        )
    return Lock(box.recipe, box.kubernetes, box.made_from, box.digest)


def lock_text(lock: Lock) -> str:
    """The lock as the text of its file."""
    data = {"format": _FORMAT, **asdict(lock)}
    return json.dumps(data, indent=2) + "\n"


def read_lock(file: Path) -> Lock:
    """A lock from its file.

    Raises:
        NotFound: the file does not exist.
        UsageError: it is no lock, or one of another klab.
    """
    text = read_limited(file, _MOST, hint=(Remedy("box lock"), " writes one"))
    try:
        return parse_lock(text)
    except ValueError as error:
        raise UsageError(
            f"{visible(str(file))} is no lock that klab reads", details=[shortened(str(error))], hint=_GET_AGAIN
        ) from error


def parse_lock(text: str | bytes) -> Lock:
    """A lock from its text.

    Raises:
        ValueError: it is invalid; the message says what is wrong.
    """
    data = records.parse(text)
    found = records.pop_format(data)
    if found != _FORMAT:
        raise ValueError(f"format {visible(shortened(repr(found)))}, this klab reads {_FORMAT}")
    lock = records.build(Lock, data)
    if FULL_VERSION.fullmatch(lock.kubernetes) is None:
        raise ValueError(f"kubernetes is {lock.kubernetes!r}")
    check_made_from(lock.made_from)
    if lock.disk and DIGEST.fullmatch(lock.disk) is None:
        raise ValueError(f"disk is {lock.disk!r}")
    return lock
