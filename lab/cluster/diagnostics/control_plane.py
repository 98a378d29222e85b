"""What can be wrong with static pods, etcd, the virtual IP and the API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lab.cluster.clients.etcd_answers import Alarm
from lab.cluster.diagnostics.context import (
    Before,
    Check,
    CheckContext,
    Finding,
    balanced,
    cause,
    kubernetes,
    unreported,
)
from lab.cluster.diagnostics.repair import END_API_SERVER, etcdctl, manifest_again
from lab.cluster.observe.facts import MemberFacts, endpoint_line, etcd_line
from lab.cluster.observe.node_report import COMM_LENGTH, STATIC_PODS
from lab.machines.protocol import NodeState

BALANCER = "sudo systemctl restart haproxy keepalived"
RESTART_KUBELET = "sudo systemctl restart kubelet"
# Seconds of the guest's in which a kubelet that has just started, or just got a manifest, may not have started a static
# pod: it asks the API server about it first, and one that waits for its etcd lets it wait for a minute or two.
SETTLING_SECONDS = 120.0


def static_pod_evidence(case: CheckContext, node: str, pod: str, before: Before) -> tuple[str, str]:
    """The evidence for a static pod that does not answer, and the command that repairs it."""
    if node not in case.reports:
        return "", cause(before, node, f"klab reboot --force {case.lab} {node}")
    process = case.process(node, pod)
    if process is not None and process.works:
        return f"; asked there a moment later, {pod} answers", cause(before, node, case.look_again)
    if process is not None and process.young:
        # One that is ended now is back a minute of the guest's later.
        return f"; {pod} has just started there, {process.age:.0f} s ago", cause(before, node, case.look_again)
    if process is not None:
        # The kubelet restarts it.
        again = case.ssh(node, f"sudo pkill -x {pod[:COMM_LENGTH]}")
        return f"; {pod} runs there", cause(before, node, again)
    kubelet = case.process(node, "kubelet")
    if kubelet is not None and kubelet.younger(SETTLING_SECONDS):
        why = f"; {pod} does not run there yet, the kubelet has just started, {kubelet.age:.0f} s ago"
        return why, cause(before, node, case.look_again)
    written = case.reports[node].manifests.get(pod)
    if written is not None and written < SETTLING_SECONDS:
        why = f"; {pod} does not run there yet, its manifest was written {written:.0f} s ago"
        return why, cause(before, node, case.look_again)
    end_api = f"{END_API_SERVER}; " if pod == "etcd" else ""
    again = case.ssh(node, f"{end_api}{RESTART_KUBELET}; sudo sh -c 'tail -n 20 /var/log/containers/{pod}-*'")
    return f"; {pod} does not run there", cause(before, node, again)


def mirrored(case: CheckContext, node: str, pod: str, before: Before) -> tuple[str, str]:
    """As `static_pod_evidence`, for a pod that the API calls not ready, which is stale where its program answers."""
    process, kubelet = case.process(node, pod), case.process(node, "kubelet")
    if process is None or not process.works:
        return static_pod_evidence(case, node, pod, before)
    # The kubelet tells the API, some time after either has started.
    soon = process.young or kubelet is None or kubelet.young
    repair = case.look_again if soon else case.ssh(node, RESTART_KUBELET)
    return f"; {pod} itself answers, only what the API knows of it is stale", cause(before, node, repair)


def _manifests(case: CheckContext, _before: Before) -> Iterator[Finding]:
    for node, report in case.reported_members:
        for pod in STATIC_PODS:
            if node.is_control_plane and pod not in report.manifests:
                seen = f"/etc/kubernetes/manifests/{pod}.yaml is missing"
                repair = case.ssh(node.name, manifest_again(case.plan, node, pod))
                yield Finding("static pods", node.name, f"it is not to run {pod}", seen, repair, causes=True)


def _etcd(case: CheckContext, before: Before) -> Iterator[Finding]:
    etcd = case.facts.etcd
    if etcd is None or not case.planes:
        return
    lost = case.facts.quorum_lost
    if lost:
        seen = "; ".join(f"{m.name}: {_word(m)}" for m in etcd.members)
        yield Finding("etcd", "", lost.partition(";")[0], seen, _restore_member(case, before), causes=True)
    yield from _alarms(case, etcd.alarms)
    for member in etcd.members:
        yield from _member(case, member, before, well=not lost and not etcd.alarms)


def _word(member: MemberFacts) -> str:
    return member.error or (", ".join(member.status.errors) if member.status else "") or "ok"


def _restore_member(case: CheckContext, before: Before) -> str:
    """The command that restores a member: start its machine, or repair the first node whose member is silent."""
    states = {n.name: case.seen(n.name).machine for n in case.plan.control_planes}
    off = [name for name, state in states.items() if state not in {NodeState.RUNNING, NodeState.ABSENT, "unknown"}]
    if off:
        return f"klab start {case.lab} {off[0]}"
    silent = [m.name for m in case.facts.etcd.voters if m.status is None and m.planned] if case.facts.etcd else []
    here = [name for name in silent if states[name] != NodeState.ABSENT]
    if silent and not here:
        return case.recreate
    return static_pod_evidence(case, here[0] if here else case.planes[0].name, "etcd", before)[1]


def _member(case: CheckContext, member: MemberFacts, before: Before, *, well: bool) -> Iterator[Finding]:
    if not member.planned:
        what = f"etcd has a member that is not a node of this lab: {member.name}"
        repair = case.ssh(case.planes[0].name, etcdctl(f"member remove {member.id:x}"))
        yield Finding("etcd", "", what, f"its id is {member.id:x}", repair)
    elif member.name in case.outside:
        return
    elif member.joined is False:
        repair = case.recreate_node(member.name)
        yield Finding("etcd", member.name, "it is not a member of etcd", "the membership lacks it", repair, causes=True)
    elif member.status is None:
        why, repair = static_pod_evidence(case, member.name, "etcd", before)
        yield Finding("etcd", member.name, "its etcd member is lost", member.error + why, repair, causes=True)
    elif not member.status.healthy and well:
        why, repair = static_pod_evidence(case, member.name, "etcd", before)
        yield Finding("etcd", member.name, "its etcd member is not healthy", _word(member) + why, repair, causes=True)


def _alarms(case: CheckContext, alarms: Iterable[Alarm]) -> Iterator[Finding]:
    members = case.facts.etcd.members if case.facts.etcd else ()
    names = {m.id: m.name for m in members}
    statuses = [m.status for m in members if m.status]
    by_kind: dict[str, list[str]] = {}
    for alarm in alarms:
        by_kind.setdefault(alarm.kind, []).append(names.get(alarm.member, f"{alarm.member:x}"))
    for kind, raised in by_kind.items():
        size = max(
            (f"{s.db_size >> 20} of {s.quota >> 20} MiB used" for s in statuses if s.quota), default="size unknown"
        )
        seen = f"alarm {kind} of {', '.join(sorted(raised))}; {size}"
        if kind == "NOSPACE":
            # Old revisions go, the file shrinks, then writing is allowed again.
            revision = max((s.revision for s in statuses), default=0)
            orders = (f"compact {revision}", "defrag --cluster", "alarm disarm")
            repair = case.ssh(case.planes[0].name, etcdctl(*orders))
            yield Finding("etcd", "", "etcd's database is full: nothing can be written", seen, repair, causes=True)
        else:
            # One that is not a node of the lab has a repair of its own, below.
            known = next((name for name in raised if case.plan.node(name)), "")
            repair = case.recreate_node(known) if known else case.look_again
            yield Finding("etcd", known, f"etcd has raised the alarm {kind}", seen, repair)


def _virtual_ip(case: CheckContext, before: Before) -> Iterator[Finding]:
    asked = [n.name for n in case.balancing if n.name in case.reports]
    holders = _holders(case)
    if len(holders) > 1:
        seen = f"{_vip(case)} is on {', '.join(holders)}"
        yield Finding("virtual IP", "", "more than one node holds it", seen, case.ssh(holders[-1], BALANCER))
    elif asked and not holders and not _virtual_ip_unseen(case):
        seen = f"{_vip(case)} is on none of {', '.join(asked)}"
        services = [f for f in before if f.check in {"haproxy", "keepalived"}]
        repair = services[0].repair if services else case.ssh(asked[0], BALANCER)
        yield Finding("virtual IP", "", "no node holds it", seen, repair, causes=True)


def _vip(case: CheckContext) -> str:
    return str(case.plan.load_balancer.vip) if case.plan.load_balancer else ""


def _holders(case: CheckContext) -> list[str]:
    return [n.name for n in case.balancing if n.name in case.reports and _vip(case) in case.reports[n.name].addresses]


def _virtual_ip_unseen(case: CheckContext) -> str:
    silent = [n.name for n in case.balancing if n.name in case.silent]
    if silent and not _holders(case):
        return f"not asked: {', '.join(silent)}"
    return "" if any(n.name in case.reports for n in case.balancing) else "no node runs that may hold it"


def _api(case: CheckContext, before: Before) -> Iterator[Finding]:
    endpoint = case.facts.endpoint
    if endpoint is None:
        return
    broken = [n.name for n in case.planes if case.seen(n.name).api]
    for name in broken:
        why, repair = static_pod_evidence(case, name, "kube-apiserver", before)
        yield Finding("API", name, "its API server is not ready", f"{case.seen(name).api}{why}", repair)
    if endpoint.error and len(broken) < len(case.planes):
        ways = [f for f in before if f.check in {"virtual IP", "haproxy", "keepalived"}]
        first = next((n.name for n in case.balancing if n.name in case.reports), case.planes[0].name)
        repair = ways[0].repair if ways else case.ssh(first, BALANCER)
        yield Finding("API", "", f"the API does not answer at {endpoint.url}", endpoint.error, repair, causes=True)


def _no_plane(case: CheckContext) -> str:
    return "" if case.planes else "no control plane runs"


STATIC = Check("static pods", _manifests, kubernetes, unreported)
ETCD = Check(
    "etcd",
    _etcd,
    kubernetes,
    lambda case: case.facts.etcd.error if case.facts.etcd else "",
    lambda case: etcd_line(case.facts),
)
VIRTUAL_IP = Check(
    "virtual IP", _virtual_ip, balanced, _virtual_ip_unseen, lambda case: f"{_vip(case)} is on {_holders(case)[0]}"
)
API = Check("API", _api, kubernetes, _no_plane, lambda case: endpoint_line(case.facts))
