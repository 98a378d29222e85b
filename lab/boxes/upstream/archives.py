"""What is in an archive of programs."""

from __future__ import annotations

import tarfile
from pathlib import Path

from lab.errors import BoxError

_HINT = "its project publishes it otherwise than klab knows; --source source compiles it instead"


def unpack(archive: Path, member: str) -> bytes:
    """A regular file in an archive.

    Raises:
        BoxError: the archive does not have it, or cannot be read.
    """
    try:
        with tarfile.open(archive) as opened:
            for each in opened:
                if each.name.removeprefix("./") == member and each.isreg() and (source := opened.extractfile(each)):
                    return source.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BoxError(f"{archive.name} cannot be unpacked", details=[str(error)], hint=_HINT) from error
    raise BoxError(f"{archive.name} has no {member} in it", hint=_HINT)
