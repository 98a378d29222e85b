"""The NoCloud seed as a disk image: an ISO 9660 labelled `cidata`.

Source: cloudinit.readthedocs.io, datasource NoCloud, "a labeled vfat or iso9660 filesystem".
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab import process
from lab.files import write_atomic

LABEL = "cidata"
# Any fixed moment: the same files shall give the same bytes.
EPOCH = 1577836800


def write_iso(files: Mapping[str, str], out: Path) -> None:
    """Write files into an ISO image that cloud-init takes for its seed.

    The image is readable by its owner alone, since a seed holds keys, and the same
    files give the same bytes.

    Args:
        files: content by name: user-data, meta-data, network-config.
        out: the image; its folder is made.

    Raises:
        HostError: xorriso is not installed.
        ProgramError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="klab-seed-") as name:
        folder = Path(name)
        source = folder / "files"
        source.mkdir(mode=0o700)
        for file, text in sorted(files.items()):
            (source / file).write_text(text, encoding="utf-8")
            os.utime(source / file, (EPOCH, EPOCH))
        os.utime(source, (EPOCH, EPOCH))
        image = folder / "seed.iso"
        # xorriso, not genisoimage: that one writes the present moment into the Joliet tree.
        process.run(
            ["xorriso", "-as", "mkisofs", "-quiet", "-V", LABEL, "-J", "-r", "-o", image, source],
            timeout=60,
            env={"SOURCE_DATE_EPOCH": str(EPOCH), "TZ": "UTC"},
        )
        write_atomic(out, image.read_bytes(), mode=0o600)
