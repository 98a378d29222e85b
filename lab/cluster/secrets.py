"""The cluster's CAs, service-account key, bootstrap token and klab's own certificates, made on the host.

Made before the first VM boots, so that every node can be handed its part and none waits
for another's files. Kept in the lab's folder, readable by the owner alone.
Source: kubernetes.io, "PKI certificates and requirements"; names as kubeadm gives them.
"""

from __future__ import annotations

import datetime
import json
import secrets as random_source
import string
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from lab import records
from lab.cluster.pki import (
    ClientFiles,
    ca_hash,
    kubelet_server,
    load_key,
    make_ca,
    make_service_account,
    signed,
    subject,
    usable,
)
from lab.errors import ClusterError
from lab.files import write_atomic
from lab.plan.model import Node
from lab.render.secrets import KeyPair, Secrets
from lab.scenario.mirror_access import MirrorAccess
from lab.store import LabFolder

CLIENT_VALIDITY = datetime.timedelta(days=365)
TOKEN_ALPHABET = string.ascii_lowercase + string.digits

_PAIRS = {
    "ca": ("ca.crt", "ca.key", "kubernetes"),
    "front_proxy_ca": ("front-proxy-ca.crt", "front-proxy-ca.key", "front-proxy-ca"),
    "etcd_ca": ("etcd-ca.crt", "etcd-ca.key", "etcd-ca"),
}


def load_or_make(folder: LabFolder, *, rsa_service_account: bool = False) -> Secrets:
    """The lab's secrets; made the first time, read from then on.

    A kill half-way leaves whole files only; the next call makes what is missing.

    Args:
        folder: the lab's.
        rsa_service_account: make the service accounts' key an RSA one, see `Features`.
    """
    pki = folder.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    pairs = {}
    for name, (certificate, key, common_name) in _PAIRS.items():
        if not (pki / certificate).exists():
            made = make_ca(common_name)
            # The key first: a certificate without its key would be taken for whole.
            write_atomic(pki / key, made.private, mode=0o600)
            write_atomic(pki / certificate, made.public, mode=0o600)
        pairs[name] = KeyPair((pki / certificate).read_text(), (pki / key).read_text())
    if not (pki / "sa.pub").exists():
        made = make_service_account(in_rsa=rsa_service_account)
        write_atomic(pki / "sa.key", made.private, mode=0o600)
        write_atomic(pki / "sa.pub", made.public, mode=0o600)
    if not (pki / "token").exists():
        write_atomic(pki / "token", make_token(), mode=0o600)
    if not (pki / "admin.crt").exists():
        _client(pki, "admin", pairs["ca"], subject("klab-admin", "system:masters"))
    etcd_client_files(folder)
    return Secrets(
        ssh_public_key=_ssh(folder),
        service_account=KeyPair((pki / "sa.pub").read_text(), (pki / "sa.key").read_text()),
        token=(pki / "token").read_text(),
        ca_hash=ca_hash(pairs["ca"].public),
        mirror_access=_mirror_access(folder),
        **pairs,
    )


def with_kubelet(secrets: Secrets, node: Node) -> Secrets:
    """A lab's secrets, and a new certificate for the kubelet of one of its nodes; it holds for a year.

    A kubelet that finds none signs one itself, which nobody can check: metrics are then asked of anyone.
    """
    until = datetime.datetime.now(datetime.UTC) + CLIENT_VALIDITY
    return replace(secrets, kubelet=kubelet_server(secrets.ca, node.name, node.address, until))


def keep_mirror_access(folder: LabFolder, access: Mapping[str, MirrorAccess]) -> None:
    """Keep what mirrors are asked with for nodes that are made later."""
    if access:
        folder.pki.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({registry: asdict(each) for registry, each in access.items()})
        write_atomic(folder.mirror_access, text, mode=0o600)


def _mirror_access(folder: LabFolder) -> dict[str, MirrorAccess]:
    """What `keep_mirror_access` kept.

    Raises:
        ClusterError: the file is damaged.
    """
    if not folder.mirror_access.exists():
        return {}
    try:
        found = records.parse(folder.mirror_access.read_bytes())
        return {registry: records.build(MirrorAccess, each, complete=True) for registry, each in found.items()}
    except (records.RecordError, AttributeError, TypeError) as error:
        raise ClusterError(
            "what the lab's mirrors are asked with is damaged",
            details=[f"{folder.mirror_access}: {error}"],
            hint="delete the file: new nodes then ask the mirrors without a CA and a login",
        ) from error


def admin_files(folder: LabFolder) -> ClientFiles:
    """The files of a client of the API, made by `load_or_make`: an admin even before RBAC's first binding exists."""
    pki = folder.pki
    return ClientFiles(pki / "ca.crt", pki / "admin.crt", pki / "admin.key")


def etcd_client_files(folder: LabFolder) -> ClientFiles:
    """The files of a client of the lab's etcd; made where they are missing, as in labs of an older klab, or unusable.

    Raises:
        ClusterError: the lab's etcd CA is missing or damaged.
    """
    pki = folder.pki
    files = ClientFiles(pki / "etcd-ca.crt", pki / "etcd-client.crt", pki / "etcd-client.key")
    try:
        if not usable(files):
            ca = KeyPair(files.ca.read_text(), (pki / "etcd-ca.key").read_text())
            _client(pki, "etcd-client", ca, subject("klab-etcd-client"))
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


def _client(pki: Path, name: str, ca: KeyPair, owner: x509.Name, until: datetime.datetime | None = None) -> None:
    """A client certificate and its key, as NAME.crt and NAME.key; validity as in `pki.signed`, a year when left out."""
    until = until or datetime.datetime.now(datetime.UTC) + CLIENT_VALIDITY
    made = signed(ca, owner, [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])], until)
    write_atomic(pki / f"{name}.key", made.private, mode=0o600)
    write_atomic(pki / f"{name}.crt", made.public, mode=0o600)


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


# --- renewal ----------------------------------------------------------------------------------


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
            if load_key(pair).public_key() != x509.load_pem_x509_certificate(pair.public.encode()).public_key():
                raise ValueError(f"{key} is not the key of {certificate}")
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(
                f"a CA of lab {folder.name!r} cannot be used",
                details=[str(error)],
                hint=f"put back {certificate} and {key} in {pki}",
            ) from error
        found[certificate.removesuffix(".crt")] = pair
    return found


def renew_clients(folder: LabFolder, until: datetime.datetime) -> None:
    """Replace klab's own certificates; validity as in `pki.signed`.

    Raises:
        ClusterError: as `authorities`.
    """
    cas = authorities(folder)
    for name, ca, owner in (
        ("admin", cas["ca"], subject("klab-admin", "system:masters")),
        ("etcd-client", cas["etcd-ca"], subject("klab-etcd-client")),
    ):
        _client(folder.pki, name, ca, owner, until)
