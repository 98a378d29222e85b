"""Cloud images: disks with another system, which a person downloads, for lessons that begin with a plain machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab import records

# The recipe's key that makes it one of a cloud image.
CLOUD_IMAGE = "cloud_image"


@dataclass(frozen=True, slots=True)
class CloudImage:
    """What a recipe says of a cloud image.

    system: what is on it, as people call it.
    file: the file's name, as its publisher gives it.
    address: the folder on the web where it is published.
    checksums: the file beside it with its published checksum.
    disk: how large a node's disk is at least, in GiB; the image's own is no larger.
    notes: what a lesson has to know of it, one line each.
    """

    system: str
    file: str
    address: str
    checksums: str
    disk: int
    notes: tuple[str, ...] = ()


def read_cloud_image(data: Any) -> CloudImage:
    """The part of a recipe that is about its cloud image.

    Raises:
        ValueError: it has another shape; the message names the key.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{CLOUD_IMAGE}: a mapping is missing")
    try:
        return records.build(CloudImage, data)
    except ValueError as error:
        raise ValueError(f"{CLOUD_IMAGE}: {error}") from error
