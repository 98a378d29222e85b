"""Programs that a person runs on a node of a lab, or against a lab: their command lines and environments.

The lab has been entered when such a program is started (`lab.process.attach`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.boxes.kubectl import kubectl_for
from lab.cluster.clients.proxies import straight_to
from lab.cluster.lab import Lab
from lab.errors import MachineError, Remedy
from lab.machines.protocol import NodeState
from lab.machines.vagrant.command import environment
from lab.process import have


@dataclass(frozen=True, slots=True)
class Program:
    """A command line, and the variables that it needs beside klab's own environment, or (None) must not have."""

    argv: list[str]
    env: Mapping[str, str | None] = field(default_factory=dict)


def ssh(lab: Lab, node: str, words: Sequence[str] = ()) -> Program:
    """A shell on a node, or one command there; a single word with blanks goes to a shell, as ssh would have it."""
    command = ["bash", "-c", words[0]] if len(words) == 1 and " " in words[0] else list(words)
    return Program(lab.machines().ssh_argv(node, command))


def ssh_if_running(lab: Lab, node: str) -> Program:
    """A shell on a node whose machine runs; otherwise ssh would only time out.

    Raises:
        MachineError: it does not run.
    """
    machines = lab.machines()
    state = machines.states()[node]
    if state != NodeState.RUNNING:
        raise MachineError(
            f"{node} is not running: its machine is {state.value}", hint=Remedy("start", lab=lab.name, node=node)
        )
    return Program(machines.ssh_argv(node))


def kubelet_journal(lab: Lab, node: str, lines: int, *, follow: bool) -> Program:
    """The last lines of the kubelet's journal on a node, and those to come."""
    words = ["sudo", "journalctl", "-u", "kubelet", "-n", str(lines), "--no-pager", *(["-f"] if follow else [])]
    return Program(lab.machines().ssh_argv(node, words))


def kubectl(lab: Lab, words: Sequence[str]) -> Program:
    """kubectl, of the version that fits the lab, with the lab's kubeconfig."""
    return Program([_kubectl(lab), *words], {"KUBECONFIG": str(lab.folder.kubeconfig), **straight_to(lab.plan)})


def has_kubectl(lab: Lab) -> bool:
    """Whether this machine has a kubectl for the lab."""
    return have(_kubectl(lab))


def _kubectl(lab: Lab) -> str:
    return kubectl_for(lab.home, lab.record.box, lab.plan.kubernetes.version)


def vagrant(lab: Lab, words: Sequence[str]) -> Program:
    """Vagrant in the lab's folder."""
    return Program(["vagrant", *words], environment(lab.folder.path))
