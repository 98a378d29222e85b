"""What can be wrong with the pod network, images, nodes as the cluster sees them, and pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
from lab.cluster.observe.node_report import STATIC_PODS, NodeReport
from lab.components.cni import network
from lab.components.cni.base import Observed, PodNetwork
from lab.components.runtime import runtime
from lab.plan.model import Node
from lab.plan.versions import numbers

EVERYWHERE = ("pause", "kube-proxy", "coredns")
DNS_LABEL = "k8s-app=kube-dns"


def _network(case: CheckContext, before: Before) -> Iterator[Finding]:
    pods = network(case.plan.kubernetes.cni)
    for node, report in case.reported_members:
        seen = Observed(node.name, report, case.seen(node.name).unheard, case.facts.pods)
        for found in pods.problems(seen, case):
            repair = cause(before, node.name, found.repair) if found.follows else found.repair
            yield Finding("network", node.name, found.what, found.evidence, repair, causes=True)


def _images(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for node, report in case.reported:
        missing = _missing(case, node, report)
        if missing:
            seen = f"{case.plan.kubernetes.runtime} lacks {', '.join(missing)}"
            repair = case.ssh(node.name, _pull(case, missing))
            yield Finding("images", node.name, "images of the cluster itself are missing", seen, repair)
    shipped = case.plan.kubernetes.versions.images.values()
    for pod in case.facts.pods or ():
        if not pod.images:
            continue
        pulls = [image for image in pod.images if image in shipped]
        # An image that klab does not know is a person's to name: the command shows who asked for it.
        repair = case.kubectl("describe", "pod", "-n", pod.namespace, pod.name)
        if pulls and pod.node:
            repair = case.ssh(pod.node, _pull(case, pulls))
        what = f"pod {pod.namespace}/{pod.name} cannot get its images: {', '.join(pod.images)}"
        yield Finding("images", pod.node, what, pod.why, repair)


def _missing(case: CheckContext, node: Node, report: NodeReport) -> list[str]:
    """The images that a node of its role cannot do without and does not have."""
    wanted = [*EVERYWHERE, *(STATIC_PODS if node.is_control_plane else ())]
    versions = case.plan.kubernetes.versions
    wanted += network(case.plan.kubernetes.cni).images(dict(versions.components))
    shipped = versions.images
    return [] if report.images is None else [shipped[name] for name in wanted if shipped[name] not in report.images]


def _pull(case: CheckContext, images: Sequence[str]) -> str:
    # From the node's own registry, where the runtime is configured to look first.
    return "; ".join(map(runtime(case.plan.kubernetes.runtime).pull, images))


def _images_unseen(case: CheckContext) -> str:
    silent = [node.name for node, report in case.reported if report.images is None]
    return f"{case.plan.kubernetes.runtime} does not answer on {', '.join(silent)}" if silent else unreported(case)


def _token(case: CheckContext, _before: Before) -> Iterator[Finding]:
    token = case.facts.token
    if case.facts.tokens is None or (token is not None and token.valid):
        return
    seen = f"of {len(case.facts.tokens)} bootstrap tokens in kube-system none is valid"
    yield Finding("token", "", "no node can join: there is no valid bootstrap token", seen, f"klab token {case.lab}")


def _nodes(case: CheckContext, before: Before) -> Iterator[Finding]:
    for node in case.running:
        seen = case.seen(node.name)
        kubelet = case.process(node.name, "kubelet")
        young = kubelet is not None and kubelet.young
        repair = cause(before, node.name, case.look_again if young else case.ssh(node.name, RESTART_KUBELET))
        if node.name in case.outside:
            left = f"{seen.why}; /etc/kubernetes/kubelet.conf is missing there"
            again = cause(before, node.name, f"klab node join {case.lab} {node.name}")
            yield Finding("nodes", node.name, "it is no member of the cluster", left, again)
        elif seen.registered is False:
            yield Finding("nodes", node.name, "the cluster does not know it", seen.why, repair)
        elif seen.ready is False and network(case.plan.kubernetes.cni).present:
            yield Finding("nodes", node.name, "it is NotReady", seen.why, repair)
        if seen.cordoned:
            again = case.kubectl("uncordon", node.name)
            yield Finding(
                "nodes", node.name, "it is cordoned: no new pod goes there", "spec.unschedulable is set", again
            )


def _versions(case: CheckContext, _before: Before) -> Iterator[Finding]:
    """Nodes that a person has upgraded, or left at the old version; new nodes and certificates follow the plan."""
    planned = case.plan.kubernetes.version
    found = {node.name: node.kubelet.removeprefix("v") for node in case.facts.nodes if node.kubelet}
    if all(version == planned for version in found.values()):
        return
    newest = max((planned, *found.values()), key=numbers)
    what = "its nodes are not of one version of Kubernetes"
    if len(set(found.values())) == 1:
        what = f"its nodes have Kubernetes {newest}, and klab would add nodes of {planned}"
    seen = f"{', '.join(f'{name}: {version}' for name, version in found.items())}; in klab's plan: {planned}"
    yield Finding("versions", "", what, seen, f"klab upgrade {case.lab} --to {newest}")


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
    """Whether another check has said why: machine off, kubelet unheard, pod network, images; or nothing is wrong."""
    # The API's knowledge of their pods is old.
    off = {node.name for node in case.facts.nodes if not node.runs or node.unheard} | set(case.outside)
    pods = network(case.plan.kubernetes.cni)
    waits = not pods.present and pod.name.startswith("coredns")
    return pod.node in off or _of(pods, pod) or bool(pod.images) or waits


def _of(network: PodNetwork, pod: PodFacts) -> bool:
    return pod.namespace in network.namespaces and pod.name.startswith(network.pods)


NETWORK = Check(
    "network",
    _network,
    lambda plan: kubernetes(plan) and network(plan.kubernetes.cni).present,
    lambda case: unreported(case) or through_api(lambda facts: facts.pods)(case),
)
IMAGES = Check("images", _images, kubernetes, _images_unseen)
TOKEN = Check("token", _token, kubernetes, through_api(lambda facts: facts.tokens), lambda case: token_line(case.facts))
NODES = Check("nodes", _nodes, kubernetes, through_api(lambda facts: next((n.registered for n in facts.nodes), None)))
VERSIONS = Check("versions", _versions, kubernetes, NODES.unseen)
PODS = Check("pods", _pods, kubernetes, through_api(lambda facts: facts.pods), lambda case: pod_line(case.facts))
