"""Where a node stands to the cluster by its own word: the API server knows only those that have registered."""

from __future__ import annotations

from enum import StrEnum

from lab.machines.protocol import Machines

ASK_SECONDS = 30.0
ASK = (
    "sh",
    "-c",
    "[ -e /etc/cloud/cloud-init.disabled ] || { echo new; exit; }; "
    "[ ! -e /etc/klab/node.sh ] || { echo joining; exit; }; "
    "[ -e /etc/kubernetes/kubelet.conf ] && echo member || echo outside",
)


class Standing(StrEnum):
    """Where a node stands.

    NEW: its first boot is not over. JOINING: klab lets it join, and that is not over. MEMBER: kubeadm has joined it.
    OUTSIDE: it has left the cluster, by `kubeadm reset`.
    """

    NEW = "new"
    JOINING = "joining"
    MEMBER = "member"
    OUTSIDE = "outside"


def standing(machines: Machines, node: str, seconds: float = ASK_SECONDS) -> Standing:
    """Ask a node that runs; what it says in other words counts as MEMBER.

    Raises:
        MachineError, ProgramTimeout: it does not answer.
    """
    said = machines.run(node, ASK, seconds).stdout.strip()
    return next((each for each in Standing if each == said), Standing.MEMBER)
