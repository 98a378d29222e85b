"""Which node, which phase, what its log shows, what to try: the text of a failed create."""

from __future__ import annotations

from lab.cluster.events import phase_of, read_events
from lab.cluster.wait.console import Console, Consoles
from lab.components.cni import network
from lab.errors import Advice, ClusterError, LabError, MachineError, NotReadyInTime, Remedy
from lab.plan.model import Plan
from lab.store import LabFolder

SHOWN = 8
_KUBELET_LOG = ("--", "sudo", "journalctl", "-u", "kubelet", "-n", "50")


def explain_failure(plan: Plan, console: Console) -> LabError:
    """The error for a node that said itself that it failed."""
    phase, text = console.failed or ("boot", "")
    return ClusterError(
        f"{console.node} failed in phase {phase}: {text}" if text else f"{console.node} failed in phase {phase}",
        details=console.tail(),
        hint=(Remedy("ssh", node=console.node), " to look; ", Remedy("destroy", lab=plan.name), " to start over"),
    )


def explain_timeout(
    plan: Plan, what: str, missing: list[str], folder: LabFolder, consoles: Consoles, hint: Advice
) -> LabError:
    """The error for a wait that ran out: the node that is furthest behind, its phase and its last lines."""
    events = read_events(folder.events)
    details = [f"waiting for: {what}", *missing[:SHOWN]]
    behind = None
    for node in plan.nodes:
        phase, state = phase_of(events, node.name)
        if (phase, state) in {("clean", "done"), ("ready", "done")}:
            continue
        word = "reached" if state == "done" else "is in"
        details.append(f"{node.name} {word} phase {phase}")
        behind = behind or (node.name, phase)
    if behind is None:
        return NotReadyInTime("the lab is not Ready in time", details=details, hint=hint or Remedy("status"))
    name, phase = behind
    console = consoles.of(name)
    if console is not None:
        details += [f"{name}| {line}" for line in console.tail()[-SHOWN:]]
        if console.unreadable:
            details.append(f"{name}'s console cannot be read: {console.unreadable}")
        elif not console.alive:
            return MachineError(
                f"the machine {name} does not boot: its console is silent",
                details=details,
                hint=_advice(plan, name, "boot"),
            )
    return NotReadyInTime(
        f"the lab is not Ready in time: {name} is in phase {phase}",
        details=details,
        hint=_advice(plan, name, phase),
    )


def _advice(plan: Plan, node: str, phase: str) -> Advice:
    match phase:
        case "boot":
            verify = Remedy("box verify")
            return (Remedy("logs", node=node), " shows the whole console; ", verify, " checks the disk it boots from")
        case "cloud-init":
            return (Remedy("logs", node=node), " shows cloud-init's messages")
        case "init" | "join":
            log = Remedy("ssh", node=node, options=_KUBELET_LOG)
            return (log, "; ", Remedy("create"), " again continues, with a longer --timeout")
        case "clean":
            return Remedy("ssh", node=node, options=("--", "cloud-init", "status", "--long"))
        case "network":
            return network(plan.kubernetes.cni).advice(node)
    return Remedy("kubectl", options=("--", "describe", "node", node))
