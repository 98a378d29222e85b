"""A bundle's keys and certificates, validated before anything is made of them. Pure.

Source of the names: `lab.cluster.secrets`, which makes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

MOST_BYTES = 64 << 10  # of one file; klab's own have less than 2 KiB
_AUTHORITIES = ("ca", "front-proxy-ca", "etcd-ca")
# Those that klab makes itself where they are missing, by the CA that signs them.
_CLIENTS = {"admin": "ca", "etcd-client": "etcd-ca"}
_SSH, _SSH_PUBLIC = "ssh/id_ed25519", "ssh/id_ed25519.pub"
_NEEDED = {
    *(f"pki/{name}.{kind}" for name in _AUTHORITIES for kind in ("crt", "key")),
    *("pki/sa.key", "pki/sa.pub", "pki/token", _SSH),
}
NAMES = frozenset({*_NEEDED, *(f"pki/{name}.{kind}" for name in _CLIENTS for kind in ("crt", "key")), _SSH_PUBLIC})
# kubernetes.io, "Authenticating with Bootstrap Tokens"
_TOKEN = re.compile(rb"[a-z0-9]{6}\.[a-z0-9]{16}")


def check_keys(files: Mapping[str, bytes]) -> None:
    """Make sure that a lab can work with these keys.

    Args:
        files: their content, by FOLDER/FILE.

    Raises:
        ValueError: one is missing, cannot be read or does not match another; the message names it.
    """
    if surplus := files.keys() - NAMES:
        raise ValueError(f"{min(surplus)} is not a key of a lab")
    if missing := _NEEDED - files.keys():
        raise ValueError(f"{min(missing)} is missing")
    for name in _AUTHORITIES:
        _check_authority(files, name)
    for name, issuer in _CLIENTS.items():
        _check_client(files, name, issuer)
    # Of a Kubernetes that takes no other it is an RSA key.
    _private(files, "pki/sa.key", "pki/sa.pub", _public(files, "pki/sa.pub"), or_rsa=True)
    if _TOKEN.fullmatch(files["pki/token"]) is None:
        raise ValueError("pki/token is not a bootstrap token")
    _check_ssh(files)


def _check_authority(files: Mapping[str, bytes], name: str) -> None:
    file = f"pki/{name}.crt"
    certificate = _certificate(files, file)
    _private(files, f"pki/{name}.key", file, certificate.public_key())
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_ca = False
    if not is_ca:
        raise ValueError(f"{file} is not a CA's certificate")


def _check_client(files: Mapping[str, bytes], name: str, issuer: str) -> None:
    file, key = f"pki/{name}.crt", f"pki/{name}.key"
    if not {file, key} & files.keys():
        return
    if not {file, key} <= files.keys():
        raise ValueError(f"{file} and {key} are not both there")
    certificate = _certificate(files, file)
    _private(files, key, file, certificate.public_key())
    try:
        certificate.verify_directly_issued_by(_certificate(files, f"pki/{issuer}.crt"))
    except (ValueError, TypeError, InvalidSignature):
        raise ValueError(f"{file} is not signed by pki/{issuer}.crt") from None


def _certificate(files: Mapping[str, bytes], name: str) -> x509.Certificate:
    try:
        files[name].decode("ascii")
        found = x509.load_pem_x509_certificate(files[name])
        found.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{name} is not a certificate in PEM") from None
    return found


def _public(files: Mapping[str, bytes], name: str) -> object:
    try:
        files[name].decode("ascii")
        return serialization.load_pem_public_key(files[name])
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{name} is not a public key in PEM") from None


def _private(files: Mapping[str, bytes], name: str, beside: str, public: object, *, or_rsa: bool = False) -> None:
    """Make sure that a file has a key of a kind that klab makes there, and that its public half is `public`."""
    try:
        files[name].decode("ascii")
        found = serialization.load_pem_private_key(files[name], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{name} is not a private key in PEM, or has a passphrase") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey) and not (or_rsa and isinstance(found, rsa.RSAPrivateKey)):
        raise ValueError(f"{name} is not an elliptic-curve key{', nor an RSA one' if or_rsa else ''}")
    if found.public_key() != public:
        raise ValueError(f"{name} is not the key of {beside}")


def _check_ssh(files: Mapping[str, bytes]) -> None:
    try:
        found = serialization.load_ssh_private_key(files[_SSH], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"{_SSH} is not an OpenSSH private key, or has a passphrase") from None
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise ValueError(f"{_SSH} is not an Ed25519 key")
    public = found.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    if _SSH_PUBLIC in files and files[_SSH_PUBLIC].split()[:2] != public.split():
        raise ValueError(f"{_SSH_PUBLIC} is not the public half of {_SSH}")
