"""Who signed a bundle: signatures by OpenSSH, made and checked by ssh-keygen, which every host has.

The manifest is signed; it has the digests of all other files. By hand, after tar has unpacked the file:

    ssh-keygen -Y verify -f allowed_signers -I teacher@example.org -n klab-checkpoint \
        -s klab-checkpoint.json.sig < klab-checkpoint.json

Source: ssh-keygen(1), "-Y sign", "-Y verify" and ALLOWED SIGNERS; openssh-portable, PROTOCOL.sshsig.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.errors import NotFound, UsageError
from lab.files import read_limited

NAMESPACE = "klab-checkpoint"
MOST_BYTES = 16 << 10
ALLOWED_SIGNERS = "allowed_signers"
_SECONDS = 60.0
_MOST_ALLOWED = 1 << 20
_GOOD = re.compile(r'Good "klab-checkpoint" signature (?:with|for .* with) (\S{1,40}) key (SHA256:[A-Za-z0-9+/]{43})')


@dataclass(frozen=True, slots=True)
class Signer:
    """The signer: type and fingerprint of the key; the principal, where a list of allowed signers was given."""

    key: str
    fingerprint: str
    principal: str = ""

    def __str__(self) -> str:
        return (
            f"{self.principal} ({self.key} {self.fingerprint})" if self.principal else f"{self.key} {self.fingerprint}"
        )


def sign(key: Path, manifest: bytes) -> bytes:
    """The signature of a manifest, armored as ssh-keygen writes it.

    Args:
        key: a private key without a passphrase, or a public one whose private half ssh-agent has.
        manifest: all of its bytes.

    Raises:
        NotFound: there is no such key.
        UsageError: the key cannot sign.
    """
    if not key.is_file():
        raise NotFound(f"there is no key {key}", hint="ssh-keygen -t ed25519 makes one; --sign names its file")
    with tempfile.TemporaryDirectory(prefix="klab-sign-") as folder:
        file = Path(folder) / "manifest"
        file.write_bytes(manifest)
        argv = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", NAMESPACE, str(file)]
        done = process.run(argv, timeout=_SECONDS, env={"SSH_ASKPASS_REQUIRE": "never"}, check=False)
        made = file.with_suffix(".sig")
        if done.code != 0 or not made.is_file():
            raise UsageError(
                f"{key} cannot sign",
                details=done.tail[-3:],
                hint=f"a key with a passphrase: ssh-add {key}, then --sign {key}.pub",
            )
        return made.read_bytes()


def signer(manifest: bytes, signature: bytes) -> Signer:
    """The signer of a manifest, as far as the signature itself tells.

    Raises:
        UsageError: the signature does not match the manifest.
    """
    with tempfile.TemporaryDirectory(prefix="klab-verify-") as folder:
        return _good(_keygen("check-novalidate", Path(folder), manifest, signature))


def allowed_signer(manifest: bytes, signature: bytes, allowed: Path) -> Signer:
    """The signer of a manifest, if a list of allowed signers has them.

    Args:
        manifest: all of its bytes.
        signature: empty where there is none.
        allowed: a file as ssh-keygen(1) describes it under ALLOWED SIGNERS.

    Raises:
        NotFound: there is no such list.
        UsageError: there is no signature, it does not match, or its key is not allowed.
    """
    read_limited(allowed, _MOST_ALLOWED, hint="a list as ssh-keygen(1) describes it under ALLOWED SIGNERS")
    if not signature:
        raise UsageError(
            "this bundle is not signed",
            details=[f"{allowed} exists, so only signed bundles are accepted"],
            hint="ask for a signed file, or remove that list",
        )
    found = signer(manifest, signature)
    with tempfile.TemporaryDirectory(prefix="klab-verify-") as name:
        folder = Path(name)
        listed = _keygen("find-principals", folder, manifest, signature, allowed)
        # A line of the list may name several, with commas between them.
        for principal in listed.stdout.replace(",", "\n").splitlines() if listed.code == 0 else ():
            done = _keygen("verify", folder, manifest, signature, allowed, principal)
            if done.code == 0:
                return Signer(found.key, found.fingerprint, principal)
    raise UsageError(
        "the signer of this bundle is not an allowed signer",
        details=[f"it is signed with {found}", f"{allowed} does not allow that key"],
        hint="compare the fingerprint with the author's; a line in that file allows the key",
    )


def _keygen(
    act: str, folder: Path, manifest: bytes, signature: bytes, allowed: Path | None = None, principal: str = ""
) -> process.Completed:
    file = folder / "signature"
    file.write_bytes(signature)
    argv: list[str | Path] = ["ssh-keygen", "-Y", act, "-s", file]
    argv += [] if act == "find-principals" else ["-n", NAMESPACE]
    argv += [] if allowed is None else ["-f", allowed]
    argv += ["-I", principal] if principal else []
    stdin = "" if act == "find-principals" else manifest.decode("ascii")
    return process.run(argv, timeout=_SECONDS, stdin=stdin, check=False)


def _good(done: process.Completed) -> Signer:
    found = _GOOD.search(done.stdout)
    if done.code != 0 or found is None:
        raise UsageError(
            "the signature does not match this bundle",
            details=done.tail[-2:],
            hint="get the file again from its author",
        )
    return Signer(found[1], found[2])


def default_allowed(root: Path) -> Path | None:
    """The list of allowed signers in klab's folder; None where there is none, and unsigned files are accepted."""
    file = root / ALLOWED_SIGNERS
    return file if file.exists() else None
