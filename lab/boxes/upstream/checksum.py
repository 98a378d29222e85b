"""Checksums as upstream publishes them, beside each program: NAME.sha256, or NAME.sha512 where that is all."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_LENGTHS = {64: "sha256", 128: "sha512"}
_HEX = re.compile(r"[0-9a-f]+")
MOST = 1 << 12  # bytes of a published checksum
ALGORITHMS = ("sha256", "sha512")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a file must be. algorithm: sha256 or sha512; hex: in lower case."""

    algorithm: str
    hex: str

    def of(self, path: Path) -> str:
        """The same checksum of a file, in hex."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest()

    def fits(self, path: Path) -> bool:
        """Whether a file is there and is the one."""
        return path.is_file() and self.of(path) == self.hex


def parse_checksum(text: str) -> Checksum:
    """A published checksum: hex digits, or the line that sha256sum writes.

    Raises:
        ValueError: it is something else, such as the page of a portal.
    """
    word = (text.split(None, 1) or [""])[0].lower()
    algorithm = _LENGTHS.get(len(word))
    if algorithm is None or _HEX.fullmatch(word) is None:
        raise ValueError("it is no checksum")
    return Checksum(algorithm, word)
