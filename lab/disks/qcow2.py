"""Whether a disk image is a plain qcow2 image, or one that reaches for other files of this host; and what is in it.

QEMU opens what an image names: a file that it lies on, a file that holds its data, be it a device, a URL or a JSON
description of anything. Source of the format: QEMU, docs/interop/qcow2.rst.
"""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lab import process
from lab.errors import LabError, ProgramError
from lab.text import shortened, visible

MAGIC = b"QFI\xfb"
# At these offsets: version, where the name of the backing file is, encryption, snapshots, incompatible features.
_VERSION_AT, _BACKING_AT, _CRYPT_AT, _SNAPSHOTS_AT, _FEATURES_AT, _HEADER = 4, 8, 32, 60, 72, 80
_WITHOUT_FEATURES = 2  # this version's header ends before them
_COMPRESSION_TYPE, _EXTENDED_ENTRIES = 1 << 3, 1 << 4
_KNOWN_FEATURES = _COMPRESSION_TYPE | _EXTENDED_ENTRIES
_SECONDS = 60.0
_CHECK = 600.0
NAMES_BACKING = "it names a backing file"
# Of exit codes of `qemu-img check`: clusters that nothing uses, which harm nobody.
_LEAKS = 3


def strangeness(file: Path, *, versions: Collection[int] = (3,)) -> str | None:
    """Why an image is not a plain qcow2 image of one of these versions of the format; None where it is one.

    The header is read first: asked about an image with a data file, qemu-img opens that.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as handle:
        header = handle.read(_HEADER)
    return _in_header(header, versions) or _in_answer(_ask(file))


def damage(file: Path) -> str | None:
    """Why a plain image is not whole, such as one whose end is missing; None where it is.

    Raises:
        ProgramTimeout: qemu-img does not end in time.
    """
    done = process.run(["qemu-img", "check", "-q", "-f", "qcow2", str(file.absolute())], timeout=_CHECK, check=False)
    return None if done.code in {0, _LEAKS} else "; ".join(done.tail[:1]) or "qemu-img finds damage in it"


def virtual_size(file: Path) -> int:
    """The bytes that a guest sees of a qcow2 image.

    Raises:
        ProgramError: it is not one.
    """
    return int(_info(file)["virtual-size"])


def measured(file: Path, kind: str) -> int:
    """How many bytes a plain qcow2 image needs for what is in an image of that kind, raw or qcow2.

    Raises:
        ProgramError: it is not one.
    """
    argv = ["qemu-img", "measure", "--output=json", "-O", "qcow2", "-f", kind, str(file.absolute())]
    said = process.run(argv, timeout=_SECONDS).stdout
    try:
        needed = json.loads(said)["required"]
        if type(needed) is int and needed >= 0:
            return needed
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise _unparsed(file, said)


def _in_header(header: bytes, versions: Collection[int]) -> str | None:
    if len(header) < _HEADER or not header.startswith(MAGIC):
        return "it is not a qcow2 image"
    (version,) = struct.unpack_from(">I", header, _VERSION_AT)
    (backing,) = struct.unpack_from(">Q", header, _BACKING_AT)
    (crypt,) = struct.unpack_from(">I", header, _CRYPT_AT)
    (snapshots,) = struct.unpack_from(">I", header, _SNAPSHOTS_AT)
    (features,) = struct.unpack_from(">Q", header, _FEATURES_AT) if version > _WITHOUT_FEATURES else (0,)
    if version not in versions:
        return f"its version is {version}, not {' or '.join(map(str, versions))}"
    if backing:
        return NAMES_BACKING
    if crypt:
        return "it is encrypted"
    if snapshots:
        return "it has snapshots inside"
    if features & ~_KNOWN_FEATURES:
        return f"it has features that no disk of klab's has: {features & ~_KNOWN_FEATURES:#x}"
    return None


def _ask(file: Path) -> dict[str, Any] | str:
    try:
        return _info(file)
    except LabError as error:
        return "; ".join(("qemu-img refuses it", *error.details[-1:]))


def _info(file: Path) -> dict[str, Any]:
    argv = ["qemu-img", "info", "-f", "qcow2", "--output=json", str(file.absolute())]
    said = process.run(argv, timeout=_SECONDS).stdout
    try:
        found: dict[str, Any] = json.loads(said)
        if isinstance(found["virtual-size"], int) and isinstance(
            found.get("format-specific", {}).get("data", {}), dict
        ):
            return found
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        pass
    raise _unparsed(file, said)


def _unparsed(file: Path, said: str) -> ProgramError:
    return ProgramError(
        "the output of qemu-img about an image cannot be parsed",
        details=[shortened(visible(said))],
        hint=f"qemu-img info {shlex.quote(str(file))} shows it",
    )


def _in_answer(info: dict[str, Any] | str) -> str | None:
    if isinstance(info, str):
        return info
    special = info.get("format-specific", {}).get("data", {})
    if "backing-filename" in info or "full-backing-filename" in info:
        return NAMES_BACKING
    if "data-file" in special:
        return "it names a file that holds its data"
    if info.get("encrypted"):
        return "it is encrypted"
    if special.get("corrupt"):
        return "it is marked as corrupt"
    return None
