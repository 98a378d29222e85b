"""Bootstrap tokens, with which nodes join a lab's cluster."""

from __future__ import annotations

from dataclasses import dataclass

from lab.app.certificates import refuse_students
from lab.cluster.lab import Lab
from lab.cluster.secrets import load_or_make
from lab.cluster.tokens import fresh_token
from lab.components.runtime import DEFAULT, runtime


@dataclass(frozen=True, slots=True)
class Token:
    """A bootstrap token that is valid for some hours, where a node joins with it, and the digest of the CA there.

    `socket` is that of the nodes' container runtime, where kubeadm finds several and does not choose; else empty.
    """

    token: str
    hours: float
    endpoint: str
    ca_hash: str
    socket: str = ""

    @property
    def command(self) -> str:
        """The kubeadm command that joins with it."""
        command = f"kubeadm join {self.endpoint} --token {self.token} --discovery-token-ca-cert-hash {self.ca_hash}"
        return f"{command} --cri-socket {self.socket}" if self.socket else command


def refuse_tokens(lab: Lab) -> None:
    """Make sure that a lab has a cluster that takes tokens of klab's; raises UsageError."""
    refuse_students(lab, "on the student's control plane: kubeadm token create --print-join-command")


def make_token(lab: Lab, hours: float = 24) -> Token:
    """Make a token for the cluster of an entered lab.

    Raises:
        ClusterError: the API server does not answer.
    """
    token = fresh_token(lab.api(), hours=hours)
    address, port = lab.plan.api_endpoint
    kubernetes = lab.plan.kubernetes
    # Beside another runtime a box may have containerd, which Docker works with.
    other = kubernetes.runtime != DEFAULT
    socket = runtime(kubernetes.runtime).socket(kubernetes.versions.minor) if other else ""
    return Token(token, hours, f"{address}:{port}", load_or_make(lab.folder).ca_hash, socket)
