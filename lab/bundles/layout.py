"""The layout of a bundle's file: a tar whose every byte follows from its manifest, its first member. Pure.

    klab-checkpoint.json          the manifest, see `lab.bundles.format`; named by version 0.1, which called bundles so
    klab-checkpoint.json.sha256   its digest, as sha256sum -c takes it
    pki/... ssh/...               the lab's keys
    nodes/NODE.qcow2.gz           a node's disk, as a difference to the box's
    box/disk.qcow2.gz             the box's disk, unless it was left out
    klab-checkpoint.json.sig      a signature of the manifest, where it was signed; see `lab.bundles.signature`

tar unpacks it. klab does not: it reads the manifest, computes where each member must be, and compares the
header there with the one that it would have written. So no member's name is used as a path, the padding between
members is zeros, and a file that was cut off or changed is refused before anything of it is used.
Source of the format: POSIX.1-1988 (ustar), by Python's tarfile.
"""

from __future__ import annotations

import hashlib
import tarfile

from lab.bundles.format import Member

MANIFEST = "klab-checkpoint.json"
SUM = f"{MANIFEST}.sha256"
SIGNATURE = f"{MANIFEST}.sig"
MODE = 0o600  # it holds private keys
SECTOR = tarfile.BLOCKSIZE
END = bytes(2 * SECTOR)


def header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, MODE
    return member.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    return bytes(-size % SECTOR)


def span(member: Member) -> int:
    """How many bytes a member takes, its header included."""
    return SECTOR + member.size + len(padding(member.size))


def closing(signature: bytes) -> bytes:
    """Everything after the last member."""
    if not signature:
        return END
    return b"".join((header(SIGNATURE, len(signature)), signature, padding(len(signature)), END))


def _sum(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def beginning(manifest: bytes) -> bytes:
    """Everything before the first member."""
    told = _sum(manifest)
    parts = (header(MANIFEST, len(manifest)), manifest, padding(len(manifest)))
    return b"".join((*parts, header(SUM, len(told)), told, padding(len(told))))
