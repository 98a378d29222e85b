"""Empty a node of its pods, and let it have some again: kubectl's own drain and uncordon, run on the host."""

from __future__ import annotations

from lab import process
from lab.cluster.clients.proxies import straight_to
from lab.cluster.events import Journal
from lab.cluster.lab import Lab
from lab.errors import ProgramError
from lab.store import Record
from lab.waiting import Deadline

# In the cluster's own time: long enough for a pod's default grace period of 30 s and its eviction.
DRAIN_SECONDS = 300
_KUBECTL_SECONDS = 120.0


def drain(lab: Lab, record: Record, kubectl: str, name: str, journal: Journal, deadline: Deadline) -> None:
    """Evict a node's pods, but for those of DaemonSets.

    A pod that cannot be evicted (a disruption budget) is noted, and left.
    """
    journal.add(name, "drain", "begin")
    command = ["drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force"]
    limit = deadline.at_most(record.guest_clock.host_seconds(DRAIN_SECONDS))
    try:
        run_kubectl(lab, kubectl, *command, f"--timeout={limit:.0f}s", seconds=limit + 30)
    except ProgramError as error:
        journal.add(name, "drain", "note", (error.details or (error.message,))[-1])
    journal.add(name, "drain", "done")


def run_kubectl(lab: Lab, kubectl: str, *words: str, seconds: float = _KUBECTL_SECONDS) -> None:
    """Run kubectl as the lab's administrator.

    Raises:
        ProgramError, ProgramTimeout: it fails.
    """
    env = {"KUBECONFIG": str(lab.folder.kubeconfig), **straight_to(lab.plan)}
    process.run([kubectl, *words], timeout=seconds, env=env)
