"""What can be wrong with the pod network, images, nodes as the cluster sees them, and pods."""

from __future__ import annotations

from collections.abc import Iterator

from lab.cluster.diagnostics.context import (
    Before,
    Check,
    CheckContext,
    Finding,
    cause,
    kubernetes,
    through_api,
    unreported,
)
from lab.cluster.diagnostics.control_plane import RESTART_KUBELET, mirrored
from lab.cluster.observe.facts import PodFacts, pod_line, token_line
from lab.cluster.observe.node_probe import STATIC_PODS, NodeReport
from lab.plan.model import Node
from lab.render.flannel import CNI_FILE, NAMESPACE, SUBNET_FILE

EVERYWHERE = ("pause", "kube-proxy", "coredns")
DAEMON = "kube-flannel-ds"
DNS_LABEL = "k8s-app=kube-dns"


def _network(case: CheckContext, before: Before) -> Iterator[Finding]:
    pods = case.facts.pods
    flannel = [p for p in pods or () if p.namespace == NAMESPACE and p.name.startswith(DAEMON)]
    for node, report in case.reported:
        own = next((p for p in flannel if p.node == node.name), None)
        repair = cause(before, node.name, _flannel_again(case, own, there=bool(flannel)))
        if pods is not None and own is None:
            seen = f"flannel runs on {', '.join(sorted({p.node for p in flannel})) or 'no node'}"
            yield Finding("network", node.name, "flannel has no pod there", seen, repair, causes=True)
        elif own is not None and not own.ready and not case.seen(node.name).unheard:
            yield Finding(
                "network", node.name, "flannel is not ready there", f"{own.name}: {own.why}", repair, causes=True
            )
        if not report.subnet:
            what = "flannel has not set up the node's part of the pod network"
            yield Finding("network", node.name, what, f"{SUBNET_FILE} is missing", repair, causes=True)
        if CNI_FILE not in report.cni:
            seen = f"{CNI_FILE} is missing; there is {', '.join(report.cni) or 'no other'}"
            what = "its CNI configuration is missing, so no pod gets a network"
            yield Finding("network", node.name, what, seen, _cni_again(case, node.name), causes=True)


def _flannel_again(case: CheckContext, own: PodFacts | None, *, there: bool) -> str:
    if own is not None:
        return case.kubectl("delete", "pod", "-n", NAMESPACE, own.name)
    if there:
        return case.kubectl("rollout", "restart", "-n", NAMESPACE, f"daemonset/{DAEMON}")
    return case.converge


def _cni_again(case: CheckContext, node: str) -> str:
    """The file as flannel's ConfigMap has it."""
    field = r"jsonpath={.data.cni-conf\.json}"
    read = case.kubectl("get", "configmap", "-n", NAMESPACE, "kube-flannel-cfg", "-o", field)
    return f"{read} | {case.ssh(node, f'sudo tee {CNI_FILE}')}"


def _images(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for node, report in case.reported:
        missing = _missing(case, node, report)
        if missing:
            seen = f"containerd lacks {', '.join(missing)}"
            repair = case.ssh(node.name, "; ".join(_pull(image) for image in missing))
            yield Finding("images", node.name, "images of the cluster itself are missing", seen, repair)
    shipped = case.plan.kubernetes.versions.images.values()
    for pod in case.facts.pods or ():
        if not pod.images:
            continue
        pulls = [_pull(image) for image in pod.images if image in shipped]
        # An image that klab does not know is a person's to name: the command shows who asked for it.
        repair = case.kubectl("describe", "pod", "-n", pod.namespace, pod.name)
        if pulls and pod.node:
            repair = case.ssh(pod.node, "; ".join(pulls))
        what = f"pod {pod.namespace}/{pod.name} waits in vain for {', '.join(pod.images)}"
        yield Finding("images", pod.node, what, pod.why, repair)


def _missing(case: CheckContext, node: Node, report: NodeReport) -> list[str]:
    """The images that a node of its role cannot do without and does not have."""
    wanted = [*EVERYWHERE, *(STATIC_PODS if node.is_control_plane else ())]
    wanted += ["flannel"] if case.plan.kubernetes.cni == "flannel" else []
    shipped = case.plan.kubernetes.versions.images
    return [] if report.images is None else [shipped[name] for name in wanted if shipped[name] not in report.images]


def _pull(image: str) -> str:
    # From the node's own registry, where containerd is configured to look first.
    return f"sudo ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d {image}"


def _images_unseen(case: CheckContext) -> str:
    silent = [node.name for node, report in case.reported if report.images is None]
    return f"containerd does not tell on {', '.join(silent)}" if silent else unreported(case)


def _token(case: CheckContext, _before: Before) -> Iterator[Finding]:
    token = case.facts.token
    if case.facts.tokens is None or (token is not None and token.valid):
        return
    seen = f"of {len(case.facts.tokens)} bootstrap tokens in kube-system none is valid"
    yield Finding("token", "", "no node could join: there is no valid bootstrap token", seen, f"klab token {case.lab}")


def _nodes(case: CheckContext, before: Before) -> Iterator[Finding]:
    for node in case.running:
        seen = case.seen(node.name)
        kubelet = case.process(node.name, "kubelet")
        young = kubelet is not None and kubelet.young
        repair = cause(before, node.name, case.look_again if young else case.ssh(node.name, RESTART_KUBELET))
        if seen.registered is False:
            yield Finding("nodes", node.name, "the cluster does not know it", seen.why, repair)
        elif seen.ready is False and case.plan.kubernetes.cni != "none":
            yield Finding("nodes", node.name, "it is NotReady", seen.why, repair)
        if seen.cordoned:
            again = case.kubectl("uncordon", node.name)
            yield Finding(
                "nodes", node.name, "it is cordoned: no new pod goes there", "spec.unschedulable is set", again
            )


def _pods(case: CheckContext, before: Before) -> Iterator[Finding]:
    static = {f"{name}-{node.name}": name for node in case.plan.control_planes for name in STATIC_PODS}
    for pod in case.facts.pods or ():
        if pod.ready or not pod.system or _explained(case, pod):
            continue
        why, repair = "", cause(before, pod.node, case.kubectl("delete", "pod", "-n", pod.namespace, pod.name))
        if pod.name in static:
            why, repair = mirrored(case, pod.node, static[pod.name], before)
        yield Finding("pods", pod.node, f"pod {pod.namespace}/{pod.name} is not ready", pod.why + why, repair)
    yield from _names(case)


def _names(case: CheckContext) -> Iterator[Finding]:
    """Kubernetes itself moves pods from a machine that is off only five minutes after it has noticed."""
    off = {node.name for node in case.facts.nodes if not node.runs}
    dns = [p for p in case.facts.pods or () if p.namespace == "kube-system" and p.name.startswith("coredns-")]
    if dns and all(pod.node in off for pod in dns):
        what = "no name resolves in the cluster: every pod of CoreDNS is on a machine that is off"
        seen = ", ".join(f"{pod.name} on {pod.node}" for pod in dns)
        # Without the wait: whether they are gone, only that machine could tell.
        repair = case.kubectl("delete", "pod", "-n", "kube-system", "-l", DNS_LABEL, "--wait=false")
        yield Finding("pods", "", what, seen, repair)


def _explained(case: CheckContext, pod: PodFacts) -> bool:
    """Whether another check has said why: machine off, kubelet unheard, flannel, images; or nothing is wrong."""
    # What the API knows of their pods is old.
    off = {node.name for node in case.facts.nodes if not node.runs or node.unheard}
    waits = case.plan.kubernetes.cni == "none" and pod.name.startswith("coredns")
    return pod.node in off or pod.namespace == NAMESPACE or bool(pod.images) or waits


NETWORK = Check(
    "network",
    _network,
    lambda plan: kubernetes(plan) and plan.kubernetes.cni == "flannel",
    lambda case: unreported(case) or through_api(lambda facts: facts.pods)(case),
)
IMAGES = Check("images", _images, kubernetes, _images_unseen)
TOKEN = Check("token", _token, kubernetes, through_api(lambda facts: facts.tokens), lambda case: token_line(case.facts))
NODES = Check("nodes", _nodes, kubernetes, through_api(lambda facts: next((n.registered for n in facts.nodes), None)))
PODS = Check("pods", _pods, kubernetes, through_api(lambda facts: facts.pods), lambda case: pod_line(case.facts))
