"""What klab keeps of a failure it did not foresee: one file to attach to a report."""

from __future__ import annotations

import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

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
    name = time.strftime("%Y%m%d-%H%M%S") + ".log"
    try:
        folder = Home.default().root / "crashes"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / name
        file.write_text(text, encoding="utf-8")
    except OSError:
        file = Path(tempfile.mkdtemp(prefix="klab-crash-")) / name
        file.write_text(text, encoding="utf-8")
    return file


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("klab")
    except metadata.PackageNotFoundError:
        return "not installed"
