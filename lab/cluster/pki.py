"""Keys and certificates of a lab's CAs, made in memory; `lab.cluster.secrets` keeps them in the lab's folder.

Source: kubernetes.io, "PKI certificates and requirements"; names as kubeadm gives them.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.render.secrets import KeyPair

RSA_BITS = 2048  # as kubeadm's own keys
CA_VALIDITY = datetime.timedelta(days=3650)
# Guests on an emulated host live behind the host's clock; a certificate must not be from their future.
BACKDATE = datetime.timedelta(days=2)


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Where a client certificate, its key and the CA of the server it is for lie on the host."""

    ca: Path
    certificate: Path
    key: Path


def make_ca(common_name: str) -> KeyPair:
    """A new CA that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = subject(common_name)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + CA_VALIDITY)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM).decode(), _private_pem(key))


def make_service_account(*, in_rsa: bool = False) -> KeyPair:
    """A new key pair for service accounts' tokens: the public key in place of a certificate."""
    key = rsa.generate_private_key(65537, RSA_BITS) if in_rsa else ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(public.decode(), _private_pem(key))


def signed(
    ca: KeyPair, owner: x509.Name, extensions: Sequence[x509.ExtensionType], until: datetime.datetime
) -> KeyPair:
    """A certificate signed by a CA of the lab: valid since the CA is, until a moment, but not longer than the CA.

    Since the CA is: clocks that stand in the future today, the guests' or the host's, may be set back.
    """
    issuer, issuer_key = x509.load_pem_x509_certificate(ca.public.encode()), load_key(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(owner)
        .issuer_name(issuer.subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(min(until, issuer.not_valid_after_utc))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    made = builder.sign(issuer_key, hashes.SHA256())
    return KeyPair(made.public_bytes(serialization.Encoding.PEM).decode(), _private_pem(key))


def reissue(ca: KeyPair, old: x509.Certificate, until: datetime.datetime) -> KeyPair:
    """A certificate with the subject and the uses of an older one, and a key of its own; validity as in `signed`."""
    kept = (x509.SubjectAlternativeName, x509.ExtendedKeyUsage)
    return signed(ca, old.subject, [e.value for e in old.extensions if isinstance(e.value, kept)], until)


def kubelet_client(ca: KeyPair, node: str, until: datetime.datetime) -> KeyPair:
    """A client certificate for a node's kubelet (kubernetes.io, "Using Node Authorization"); as in `signed`."""
    return signed(
        ca,
        subject(f"system:node:{node}", "system:nodes"),
        [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])],
        until,
    )


def kubelet_server(ca: KeyPair, node: str, address: IPv4Address, until: datetime.datetime) -> KeyPair:
    """A certificate with which a node's kubelet serves; as in `signed`.

    Subject and uses are those that Kubernetes' signer kubelet-serving asks for (kubernetes.io, "Certificates and
    Certificate Signing Requests").
    """
    names = x509.SubjectAlternativeName([x509.DNSName(node), x509.IPAddress(address)])
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return signed(ca, subject(f"system:node:{node}", "system:nodes"), [names, uses], until)


def ca_hash(certificate: str) -> str:
    """kubeadm's discovery hash of a CA: "sha256:" and the digest of its DER SubjectPublicKeyInfo."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(der).hexdigest()


def usable(files: ClientFiles) -> bool:
    """Whether a client's certificate and key are there, belong together, and hold for another day."""
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files.ca.read_bytes()))
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return key.public_key() == certificate.public_key() and left > datetime.timedelta(days=1)


def load_key(pair: KeyPair) -> ec.EllipticCurvePrivateKey:
    """The private key of a pair.

    Raises:
        ValueError, TypeError: it is damaged, or another kind of key.
    """
    key = serialization.load_pem_private_key(pair.private.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("it is not an elliptic-curve key")
    return key


def subject(common_name: str, organization: str | None = None) -> x509.Name:
    """A certificate's subject."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    # kubeadm writes and reads keys in the traditional forms, SEC 1 and PKCS #1.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=ca,
        crl_sign=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
