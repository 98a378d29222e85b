"""The cluster's CAs, service-account key, bootstrap token and klab's own certificates, made on the host.

Made before the first VM boots, so that every node can be handed its part and nobody waits
for anybody's files. Kept in the lab's folder, readable by the owner alone.
Source: kubernetes.io, "PKI certificates and requirements"; names as kubeadm gives them.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets as random_source
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.errors import ClusterError
from lab.render.secrets import KeyPair, Secrets
from lab.store import LabFolder, write_atomic

CA_VALIDITY = datetime.timedelta(days=3650)
CLIENT_VALIDITY = datetime.timedelta(days=365)
# Guests on an emulated host live behind the host's clock; a certificate must not be from their future.
BACKDATE = datetime.timedelta(days=2)
TOKEN_ALPHABET = string.ascii_lowercase + string.digits

_PAIRS = {
    "ca": ("ca.crt", "ca.key", "kubernetes"),
    "front_proxy_ca": ("front-proxy-ca.crt", "front-proxy-ca.key", "front-proxy-ca"),
    "etcd_ca": ("etcd-ca.crt", "etcd-ca.key", "etcd-ca"),
}


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """Where a client certificate, its key and the CA of the server it is for lie on the host."""

    ca: Path
    certificate: Path
    key: Path


def load_or_make(folder: LabFolder) -> Secrets:
    """The lab's secrets; made the first time, read from then on.

    A kill half-way leaves whole files only; the next call makes what is missing.
    """
    pki = folder.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    pairs = {}
    for name, (certificate, key, common_name) in _PAIRS.items():
        if not (pki / certificate).exists():
            made = _ca(common_name)
            # The key first: a certificate without its key would be taken for whole.
            write_atomic(pki / key, made.private, mode=0o600)
            write_atomic(pki / certificate, made.public, mode=0o600)
        pairs[name] = KeyPair((pki / certificate).read_text(), (pki / key).read_text())
    if not (pki / "sa.pub").exists():
        made = _service_account()
        write_atomic(pki / "sa.key", made.private, mode=0o600)
        write_atomic(pki / "sa.pub", made.public, mode=0o600)
    if not (pki / "token").exists():
        write_atomic(pki / "token", make_token(), mode=0o600)
    if not (pki / "admin.crt").exists():
        _client(pki, "admin", pairs["ca"], _name("klab-admin", "system:masters"))
    etcd_client_files(folder)
    return Secrets(
        ssh_public_key=_ssh(folder),
        service_account=KeyPair((pki / "sa.pub").read_text(), (pki / "sa.key").read_text()),
        token=(pki / "token").read_text(),
        ca_hash=ca_hash(pairs["ca"].public),
        **pairs,
    )


def admin_files(folder: LabFolder) -> ClientFiles:
    """Where `load_or_make` has put what an API client needs: an admin who holds before RBAC's first binding exists."""
    pki = folder.pki
    return ClientFiles(pki / "ca.crt", pki / "admin.crt", pki / "admin.key")


def etcd_client_files(folder: LabFolder) -> ClientFiles:
    """What a client of the lab's etcd needs; made when it is missing, as in labs of an older klab, or of no more use.

    Raises:
        ClusterError: the lab's etcd CA is missing or damaged.
    """
    pki = folder.pki
    files = ClientFiles(pki / "etcd-ca.crt", pki / "etcd-client.crt", pki / "etcd-client.key")
    try:
        if not _usable(files):
            ca = KeyPair(files.ca.read_text(), (pki / "etcd-ca.key").read_text())
            _client(pki, "etcd-client", ca, _name("klab-etcd-client"))
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(
            f"the etcd CA of lab {folder.name!r} cannot be used",
            details=[str(error)],
            hint=f"put back etcd-ca.crt and etcd-ca.key in {pki}",
        ) from error
    return files


def make_token() -> str:
    """A bootstrap token: six characters, a dot, sixteen characters of a-z and 0-9."""

    def part(length: int) -> str:
        return "".join(random_source.choice(TOKEN_ALPHABET) for _ in range(length))

    return f"{part(6)}.{part(16)}"


def ca_hash(certificate: str) -> str:
    """kubeadm's discovery hash of a CA: "sha256:" and the digest of its DER SubjectPublicKeyInfo."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(der).hexdigest()


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    # kubeadm writes and reads EC keys in the traditional SEC 1 form.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


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


def _ca(common_name: str) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
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


def _service_account() -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(public.decode(), _private_pem(key))


def _client(pki: Path, name: str, ca: KeyPair, subject: x509.Name, until: datetime.datetime | None = None) -> None:
    """A client certificate and its key, as NAME.crt and NAME.key; validity as in `_signed`, a year when left out."""
    until = until or datetime.datetime.now(datetime.UTC) + CLIENT_VALIDITY
    made = _signed(ca, subject, [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])], until)
    write_atomic(pki / f"{name}.key", made.private, mode=0o600)
    write_atomic(pki / f"{name}.crt", made.public, mode=0o600)


def _usable(files: ClientFiles) -> bool:
    """Whether a client's certificate and key are there, belong together, and hold for another day."""
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files.ca.read_bytes()))
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return key.public_key() == certificate.public_key() and left > datetime.timedelta(days=1)


def _ssh(folder: LabFolder) -> str:
    """The public half of the lab's SSH key, made when missing."""
    file = folder.ssh_key
    if not file.exists():
        key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.parent.chmod(0o700)
        write_atomic(file, private, mode=0o600)
    try:
        key_pair = serialization.load_ssh_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ClusterError(
            f"the SSH key of lab {folder.name!r} cannot be used",
            details=[str(error)],
            hint=f"put back {file}: the nodes know no other key",
        ) from error
    public = key_pair.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} klab-{folder.name}\n"
    write_atomic(file.with_suffix(".pub"), line)
    return line.strip()


# --- certificates that take the place of older ones -------------------------------------------


def authorities(folder: LabFolder) -> dict[str, KeyPair]:
    """The lab's CAs by the names of their files: ca, front-proxy-ca, etcd-ca. None is made.

    Raises:
        ClusterError: one is missing or damaged.
    """
    pki = folder.pki
    found = {}
    for certificate, key, _ in _PAIRS.values():
        try:
            pair = KeyPair((pki / certificate).read_text(), (pki / key).read_text())
            if _key(pair).public_key() != x509.load_pem_x509_certificate(pair.public.encode()).public_key():
                raise ValueError(f"{key} is not the key of {certificate}")
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(
                f"a CA of lab {folder.name!r} cannot be used",
                details=[str(error)],
                hint=f"put back {certificate} and {key} in {pki}",
            ) from error
        found[certificate.removesuffix(".crt")] = pair
    return found


def reissue(ca: KeyPair, old: x509.Certificate, until: datetime.datetime) -> KeyPair:
    """A certificate for whom and for what an older one was, with a key of its own; validity as in `_signed`."""
    kept = (x509.SubjectAlternativeName, x509.ExtendedKeyUsage)
    return _signed(ca, old.subject, [e.value for e in old.extensions if isinstance(e.value, kept)], until)


def kubelet_client(ca: KeyPair, node: str, until: datetime.datetime) -> KeyPair:
    """What a node's kubelet shows the API server (kubernetes.io, "Using Node Authorization"); as in `_signed`."""
    subject = _name(f"system:node:{node}", "system:nodes")
    return _signed(ca, subject, [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])], until)


def renew_clients(folder: LabFolder, until: datetime.datetime) -> None:
    """Make klab's own certificates anew; validity as in `_signed`.

    Raises:
        ClusterError: as `authorities`.
    """
    cas = authorities(folder)
    for name, ca, subject in (
        ("admin", cas["ca"], _name("klab-admin", "system:masters")),
        ("etcd-client", cas["etcd-ca"], _name("klab-etcd-client")),
    ):
        _client(folder.pki, name, ca, subject, until)


def _signed(
    ca: KeyPair, subject: x509.Name, extensions: Sequence[x509.ExtensionType], until: datetime.datetime
) -> KeyPair:
    """A certificate signed by a CA of the lab: valid since the CA is, until a moment, but not longer than the CA.

    Since the CA is: clocks that stand in the future today, the guests' or the host's, may be set back.
    """
    issuer, issuer_key = x509.load_pem_x509_certificate(ca.public.encode()), _key(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
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


def _key(pair: KeyPair) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pair.private.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("it is no elliptic-curve key")
    return key
