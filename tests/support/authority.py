"""Server certificates signed by a lab's own CAs, for servers on this machine."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.store import LabFolder

LOOPBACK = "127.0.0.1"


def server_files(
    folder: LabFolder, ca: str, into: Path, *, address: str = LOOPBACK, days: float = 365
) -> tuple[Path, Path]:
    """A certificate and its key for a server at `address`.

    Args:
        folder: the lab's; its secrets exist.
        ca: which CA signs, `ca` or `etcd-ca`.
        into: the folder that the two files go to.
        address: the IP address that the certificate is for.
        days: until it expires, below 0 for one that has.
    """
    issuer = x509.load_pem_x509_certificate((folder.path / "pki" / f"{ca}.crt").read_bytes())
    issuer_key = serialization.load_pem_private_key((folder.path / "pki" / f"{ca}.key").read_bytes(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]))
        .issuer_name(issuer.subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + datetime.timedelta(days=days)) - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    into.mkdir(parents=True, exist_ok=True)
    files = into / f"{ca}-server.crt", into / f"{ca}-server.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return files
