"""The secrets of one lab, as plain data: made once on the host, handed to the renderers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.scenario.mirror_access import MirrorAccess


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate (or a public key) and its private key, both PEM text."""

    public: str
    private: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a lab's nodes must share before the first of them boots.

    `token` is a kubeadm bootstrap token (`abcdef.0123456789abcdef`), `ca_hash` the digest
    by which a joining node knows the cluster's CA: "sha256:" and the hex SHA-256 of its
    DER SubjectPublicKeyInfo. `ssh_public_key` is one line in OpenSSH's format. `mirror_access` has by
    registry what its mirror is asked with. `kubelet` is what the kubelet of one node serves with, where it is known
    which node is meant.
    """

    ssh_public_key: str
    ca: KeyPair
    front_proxy_ca: KeyPair
    etcd_ca: KeyPair
    service_account: KeyPair
    token: str = field(repr=False)
    ca_hash: str = ""
    mirror_access: Mapping[str, MirrorAccess] = field(default_factory=dict, repr=False)
    kubelet: KeyPair | None = None

    @property
    def control_plane_files(self) -> dict[str, str]:
        """The PKI that each control plane starts from, as kubeadm names the files (below /etc/kubernetes/pki)."""
        return {
            "ca.crt": self.ca.public,
            "ca.key": self.ca.private,
            "front-proxy-ca.crt": self.front_proxy_ca.public,
            "front-proxy-ca.key": self.front_proxy_ca.private,
            "etcd/ca.crt": self.etcd_ca.public,
            "etcd/ca.key": self.etcd_ca.private,
            "sa.pub": self.service_account.public,
            "sa.key": self.service_account.private,
        }
