"""What klab keeps of a failure it did not foresee: one file to attach to a report."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.files import make_private
from lab.store import Home


def write_crash(error: BaseException, arguments: Sequence[str]) -> Path:
    """Write command line, versions and traceback to a file under KLAB_HOME; to the temporary folder if need be."""
    text = "\n".join(
        (
            f"command: klab {shlex.join(arguments)}",
            f"klab: {_version()}",
            f"python: {sys.version.split()[0]} on {platform.platform()}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
    try:
        folder = Home.default().root / "crashes"
        make_private(folder)
        return _written(text, folder)
    except (OSError, LabError):
        return _written(text, Path(tempfile.mkdtemp(prefix="klab-crash-")))


def _written(text: str, folder: Path) -> Path:
    """A new file for its owner alone: a command line may hold secrets."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=time.strftime("%Y%m%d-%H%M%S-"), suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return Path(name)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("klab")
    except metadata.PackageNotFoundError:
        return "not installed"
