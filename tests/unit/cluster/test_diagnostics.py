"""A healthy lab, one thing broken at a time: what is found, and what is said to repair it."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.cli.overview import COMMANDS
from lab.cluster import diagnostics
from lab.cluster.clients.etcd_answers import Alarm, MemberStatus
from lab.cluster.diagnostics import CheckContext, Finding, diagnose
from lab.cluster.diagnostics.control_plane import SETTLING_SECONDS
from lab.cluster.diagnostics.nodes import SERVICES
from lab.cluster.observe.facts import (
    Certificate,
    ClockFacts,
    ClusterFacts,
    Endpoint,
    EtcdFacts,
    MemberFacts,
    NodeFacts,
    PodFacts,
    TimeSource,
    Token,
)
from lab.cluster.observe.node_report import STATIC_PODS, YOUNG_SECONDS, Clock, NodeReport, Process, Unit
from lab.components.cni.flannel import CNI_FILE
from lab.components.runtime import runtimes
from lab.errors import MachineError
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.plan.model import Node, Plan
from lab.process import Completed
from lab.render.timekeeping import RESTART
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder, Record

RUNS = Unit("loaded", "active", "running", "enabled", "success")
FAILED = Unit("loaded", "failed", "failed", "enabled", "exit-code")
LOOK_AGAIN = "klab doctor ha"
OLD = Process(age=9000.0)  # one that runs and does not answer
PLANNED = {"start", "node", "certs", "token", "reboot"}  # made beside these checks


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    text = "version: 1\nname: ha\ntopology: {control_planes: 3, workers: 2}\n"
    return decide(parse_scenario(text, catalog), catalog)


@pytest.fixture
def single(catalog: Catalog) -> Plan:
    return decide(parse_scenario("version: 1\nname: one\n", catalog), catalog)


def status(number: int, **changes: Any) -> MemberStatus:
    found = MemberStatus(number, True, 1, "3.6.6", 77, 5, 2, 9 << 20, 1 << 20, 2 << 30, False, ())
    return replace(found, **changes)


def healthy(plan: Plan) -> CheckContext:
    """A lab in which nothing is wrong."""
    nodes = tuple(
        NodeFacts(n.name, n.role, str(n.address), "running", "" if n.is_control_plane else None, True, True)
        for n in plan.nodes
    )
    members = tuple(
        MemberFacts(n.name, planned=True, joined=True, id=i, status=status(i))
        for i, n in enumerate(plan.control_planes, start=1)
    )
    pods = tuple(PodFacts("kube-flannel", f"kube-flannel-ds-{n.name}", n.name, ready=True) for n in plan.nodes)
    address, port = plan.api_endpoint
    vip = str(plan.load_balancer.vip) if plan.load_balancer else ""
    facts = ClusterFacts(
        lab=plan.name,
        guest_time=1.7e9,
        nodes=nodes,
        endpoint=Endpoint(f"https://{address}:{port}", "", vip, "cp1"),
        etcd=EtcdFacts(members),
        certificates=(Certificate("cp1", "API server", 300.0), Certificate("", "klab's admin", 364.0)),
        tokens=(Token("abcdef", 20.0),),
        pods=pods,
        clocks=tuple(ClockFacts(n.name, TimeSource.HOST) for n in plan.control_planes),
    )
    reports = {n.name: report(plan, n) for n in plan.nodes}
    return CheckContext(plan, facts, reports, {}, Path("/labs/ha/scenario.yaml"))


def report(plan: Plan, node: Node) -> NodeReport:
    balancer = plan.load_balancer
    first = balancer is not None and node.name == balancer.nodes[0]
    return NodeReport(
        units=dict.fromkeys(SERVICES, RUNS),
        clock=Clock(0.0, 0.1),
        disk=20,
        free=10 << 20,
        inodes=3,
        addresses=(str(node.address), *((str(balancer.vip),) if balancer and first else ())),
        subnet=True,
        cni=(CNI_FILE,),
        manifests=dict.fromkeys(STATIC_PODS if node.is_control_plane else (), 9000.0),
        processes=dict.fromkeys((*(STATIC_PODS if node.is_control_plane else ()), "kubelet"), OLD),
        certificates=(("/etc/kubernetes/admin.conf", 300.0),),
        images=tuple(plan.kubernetes.versions.images.values()),
    )


def node(case: CheckContext, name: str, **changes: Any) -> CheckContext:
    """The lab with one node seen otherwise."""
    nodes = tuple(replace(n, **changes) if n.name == name else n for n in case.facts.nodes)
    return replace(case, facts=replace(case.facts, nodes=nodes))


def told(case: CheckContext, name: str, **changes: Any) -> CheckContext:
    """The lab with one node telling otherwise."""
    return replace(case, reports={**case.reports, name: replace(case.reports[name], **changes)})


def unit(case: CheckContext, name: str, service: str, state: Unit = FAILED) -> CheckContext:
    return told(case, name, units={**case.reports[name].units, service: state})


def off(case: CheckContext, name: str, state: NodeState = NodeState.STOPPED) -> CheckContext:
    """The lab with one machine off: it tells nothing, and its etcd member is silent."""
    case = node(case, name, machine=state.value, api=None if name.startswith("w") else "the machine is off")
    case = replace(case, reports={n: r for n, r in case.reports.items() if n != name})
    return member(case, name, status=None, error=f"the machine is {state.value}")


def member(case: CheckContext, name: str, **changes: Any) -> CheckContext:
    assert case.facts.etcd is not None
    members = tuple(replace(m, **changes) if m.name == name else m for m in case.facts.etcd.members)
    return facts(case, etcd=replace(case.facts.etcd, members=members))


def facts(case: CheckContext, **changes: Any) -> CheckContext:
    return replace(case, facts=replace(case.facts, **changes))


def process(case: CheckContext, name: str, program: str, seen: Process) -> CheckContext:
    """The lab with one program on a node seen otherwise."""
    return told(case, name, processes={**case.reports[name].processes, program: seen})


def endpoint(case: CheckContext, error: str) -> CheckContext:
    assert case.facts.endpoint is not None
    return facts(case, endpoint=replace(case.facts.endpoint, error=error))


def found(case: CheckContext, *checks: str) -> list[Finding]:
    """The findings of some checks, of all without a name; each repair is a line that a shell accepts and klab has."""
    findings = [f for result in diagnose(case) for f in result.findings]
    for finding in findings:
        assert finding.what, finding
        assert finding.evidence, finding
        subprocess.run(["bash", "-n"], input=finding.repair, text=True, check=True)
        for command in finding.repair.split(" && ") if not finding.repair.startswith("klab ssh") else [finding.repair]:
            first, second = command.split()[:2]
            assert first == "cp" or (first == "klab" and second in {*COMMANDS, *PLANNED}), finding
    return [f for f in findings if not checks or f.check in checks]


def only(case: CheckContext) -> Finding:
    """The one thing that is found."""
    findings = found(case)
    assert len(findings) == 1, findings
    return findings[0]


# --- nothing wrong ----------------------------------------------------------------------------


def test_a_healthy_lab_has_no_findings(plan: Plan) -> None:
    results = diagnose(healthy(plan))
    assert all(result.well for result in results), [r for r in results if not r.well]
    says = {result.check: result.says for result in results}
    assert says["machines"] == "5 run"
    assert says["etcd"] == "3 of 3 members answer, 2 are needed; leader cp1; no alarm"
    assert says["virtual IP"] == "192.168.56.10 is on cp1"
    assert says["clocks"] == "at most 0.0 s apart, give or take 0.2 s; source: this machine's clock"
    assert says["token"] == "20.0 hours left"  # noqa: S105
    others = {unit for name, each in runtimes().items() for unit in each.units if name != "containerd"}
    assert {result.check for result in results} == {check.name for check in diagnostics.CHECKS} - others


def test_a_lab_with_one_control_plane_has_no_balancer_to_check(single: Plan) -> None:
    results = diagnose(healthy(single))
    assert all(result.well for result in results), [r for r in results if not r.well]
    assert {"haproxy", "keepalived", "virtual IP"}.isdisjoint(result.check for result in results)


@pytest.mark.parametrize(
    ("bootstrap", "checks"),
    [
        ("none", {"machines", "ssh", "disk", "chrony", "clocks"}),
        ("prepared", {"machines", "ssh", "disk", "chrony", "clocks", "swap", "containerd", "docker-registry"}),
    ],
)
def test_what_klab_did_not_set_up_it_does_not_check(plan: Plan, bootstrap: Any, checks: set[str]) -> None:
    case = healthy(replace(plan, bootstrap=bootstrap))
    assert {result.check for result in diagnose(case)} == checks


# --- machines and their systems ---------------------------------------------------------------


@pytest.mark.parametrize("state", [NodeState.STOPPED, NodeState.CRASHED, NodeState.PAUSED])
def test_a_machine_that_does_not_run_is_started(plan: Plan, state: NodeState) -> None:
    finding = only(off(healthy(plan), "w1", state))
    assert (finding.check, finding.node, finding.repair) == ("machines", "w1", "klab start ha w1")
    assert state.value in finding.what


def test_a_machine_that_the_full_disk_has_paused_needs_room_first(plan: Plan) -> None:
    case = off(healthy(plan), "w1", NodeState.PAUSED)
    full = "this machine's disk is full: 0 MiB are free in /var/lib/libvirt/images/klab-1"
    nodes = tuple(replace(node, halted=full) if node.name == "w1" else node for node in case.facts.nodes)
    finding = only(facts(case, nodes=nodes))
    assert (finding.node, finding.evidence) == ("w1", full)
    assert finding.repair == "klab snapshot prune ha --keep 1; klab start ha w1"


def test_a_machine_that_is_gone_is_made_anew(plan: Plan, single: Plan) -> None:
    assert only(off(healthy(plan), "w1", NodeState.ABSENT)).repair == "klab node replace ha w1"
    first, *_ = found(off(healthy(single), "cp1", NodeState.ABSENT))
    assert first.repair == (
        "cp /labs/ha/scenario.yaml one.yaml && klab destroy -y one && klab create ./one.yaml --name one"
    )
    # Its scenario would make another lab, without all that was done in it.
    first, *_ = found(replace(off(healthy(single), "cp1", NodeState.ABSENT), from_checkpoint=True))
    assert first.repair == "klab destroy -y one && klab import FILE --name one"


def test_machines_that_cannot_be_looked_at(plan: Plan) -> None:
    case = facts(healthy(plan), unseen=("machines: libvirtd does not answer",))
    assert only(case).repair == "klab doctor"


def test_a_node_that_runs_and_is_silent(plan: Plan) -> None:
    case = healthy(plan)
    case = replace(case, reports={n: r for n, r in case.reports.items() if n != "w2"}, silent={"w2": "no route"})
    finding = only(case)
    assert (finding.check, finding.node, finding.evidence) == ("ssh", "w2", "no route")
    assert finding.repair == "klab reboot --force ha w2"
    unseen = {result.check for result in diagnose(case) if result.unseen}
    assert {"disk", "clocks", "kubelet", "network"} <= unseen
    assert "API" not in unseen


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_does_not_run(plan: Plan, name: str) -> None:
    with_it = [runtime for runtime, each in runtimes().items() if name in each.units]
    plan = replace(plan, kubernetes=replace(plan.kubernetes, runtime=with_it[0])) if with_it else plan
    finding = found(unit(healthy(plan), "cp2", name), name)[0]
    command = shlex.quote(RESTART) if name == "chrony" else f"sudo systemctl restart {name}"
    assert (finding.node, finding.repair) == ("cp2", f"klab ssh ha cp2 -- {command}")
    assert finding.evidence == f"{name}.service: loaded, failed (failed), result exit-code"


@pytest.mark.parametrize("name", ["haproxy", "keepalived"])
def test_workers_need_no_load_balancer(plan: Plan, name: str) -> None:
    assert found(unit(healthy(plan), "w1", name)) == []


def test_a_masked_service_is_unmasked_first(plan: Plan) -> None:
    case = unit(healthy(plan), "w1", "containerd", Unit("masked", "inactive", "dead", "masked", "success"))
    repair = found(case, "containerd")[0].repair
    assert repair == "klab ssh ha w1 -- 'sudo systemctl unmask containerd; sudo systemctl restart containerd'"


def test_a_service_that_will_not_come_back(plan: Plan) -> None:
    finding = only(unit(healthy(plan), "w1", "kubelet", replace(RUNS, enabled="disabled")))
    assert "not after a reboot" in finding.what
    assert finding.repair == "klab ssh ha w1 -- sudo systemctl enable kubelet"


def test_a_service_that_reloads_is_well(plan: Plan) -> None:
    assert found(unit(healthy(plan), "cp1", "haproxy", replace(RUNS, active="reloading"))) == []


def test_the_kubelets_last_words_and_the_cause_of_its_end(plan: Plan) -> None:
    case = told(unit(healthy(plan), "w1", "kubelet"), "w1", swap=("/swapfile",), kubelet="running with swap on")
    case = node(case, "w1", ready=False, why="Kubelet stopped posting node status.")
    swap, kubelet, notready = found(case)
    assert (swap.check, kubelet.check, notready.check) == ("swap", "kubelet", "nodes")
    assert kubelet.evidence.endswith("; its last log line: running with swap on")
    assert {swap.repair, kubelet.repair, notready.repair} == {"klab ssh ha w1 -- sudo swapoff -a"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"disk": 84}, "its disk is full"),
        ({"inodes": 95}, "its disk is full"),
        ({"disk": 80}, "nearly full"),
    ],
)
def test_a_disk_that_fills_up(plan: Plan, changes: dict[str, int], what: str) -> None:
    finding = only(told(healthy(plan), "w1", **changes))
    assert what in finding.what
    assert finding.repair == "klab ssh ha w1 -- 'sudo du -axh / | sort -h | tail -n 20'"


def test_a_disk_at_its_limits(plan: Plan) -> None:
    assert found(told(healthy(plan), "w1", disk=79, inodes=90)) == []
    after = only(node(healthy(plan), "w1", pressures=("DiskPressure",)))
    assert "still reports DiskPressure" in after.what
    assert after.repair == LOOK_AGAIN, "there is room again, the kubelet takes its time"
    assert found(node(healthy(plan), "w1", pressures=("MemoryPressure",))) == []


# --- clocks -----------------------------------------------------------------------------------


def clocks(case: CheckContext, **offsets: tuple[float, float]) -> CheckContext:
    for name, (offset, doubt) in offsets.items():
        case = told(case, name.replace("_", "-"), clock=Clock(offset, doubt))
    return case


def test_a_clock_apart_from_the_others(plan: Plan) -> None:
    finding = only(clocks(healthy(plan), w2=(30.0, 0.5)))
    assert (finding.node, finding.repair) == ("w2", f"klab ssh ha w2 -- {shlex.quote(RESTART)}")
    assert finding.what == "its clock is 30.0 s ahead of cp3's"
    assert finding.evidence == "+30.0 s, give or take 0.6 s for the way there"


def test_the_first_control_plane_may_be_the_one_that_is_wrong(plan: Plan) -> None:
    assert only(clocks(healthy(plan), cp1=(-5.0, 0.1))).node == "cp1"


def test_a_lab_whose_clocks_are_all_equally_behind_is_well(plan: Plan) -> None:
    """The host's clock is not the judge."""
    case = clocks(healthy(plan), **{n.name: (-40.0, 0.1) for n in plan.nodes})
    assert found(case) == []


@pytest.mark.parametrize(("offset", "doubt", "wrong"), [(1.5, 0.1, True), (1.5, 0.6, False), (0.9, 0.0, False)])
def test_the_way_there_is_allowed_for(plan: Plan, offset: float, doubt: float, wrong: bool) -> None:
    assert bool(found(clocks(healthy(plan), w1=(offset, doubt)))) == wrong


def test_of_two_nodes_the_first_is_believed(catalog: Catalog) -> None:
    two = decide(parse_scenario("version: 1\nname: two\ntopology: {workers: 1}\n", catalog), catalog)
    assert only(clocks(healthy(two), cp1=(9.0, 0.1))).what == "its clock is 9.0 s behind cp1's"


def test_one_clock_has_nothing_to_be_compared_with(single: Plan) -> None:
    case = healthy(single)
    assert found(case) == []
    case = told(case, case.plan.nodes[0].name, clock=None)
    assert {r.check: r.says for r in diagnose(case)}["clocks"].startswith("nothing to compare; source: ")


# --- certificates and tokens ------------------------------------------------------------------


def test_certificates_that_end(plan: Plan) -> None:
    soon = (
        Certificate("cp1", "API server", 12.4),
        Certificate("cp1", "etcd", 29.0),
        Certificate("w1", "kubelet", 31.0),
    )
    finding = only(facts(healthy(plan), certificates=soon))
    assert (finding.node, finding.what) == ("cp1", "a certificate there expires in 12 days")
    assert finding.evidence == "API server: 12 days left; etcd: 29 days left"
    assert finding.repair == "klab certs renew ha"


def test_certificates_that_no_door_shows(plan: Plan) -> None:
    finding = only(told(healthy(plan), "cp2", certificates=(("/etc/kubernetes/scheduler.conf", -1.0),)))
    assert (finding.node, finding.what) == ("cp2", "a certificate there has expired")
    assert finding.evidence == "/etc/kubernetes/scheduler.conf: expired"


def test_klabs_own_certificate(plan: Plan) -> None:
    finding = only(facts(healthy(plan), certificates=(Certificate("", "klab's admin", -2.0),)))
    assert (finding.node, finding.what) == ("", "klab's own certificate has expired")


def test_a_certificate_that_is_not_shown_is_not_taken_for_a_good_one(plan: Plan) -> None:
    case = facts(healthy(plan), certificates=(Certificate("w1", "kubelet", None, "connection refused"),))
    (result,) = [r for r in diagnose(case) if not r.well]
    assert (result.check, result.unseen) == ("certificates", "not shown: kubelet on w1")


def test_an_expired_certificate_is_the_cause_of_a_dead_api(plan: Plan) -> None:
    case = facts(healthy(plan), certificates=(Certificate("", "klab's admin", -2.0),))
    case = node(case, "cp1", api="not ready: 401")
    assert {f.repair for f in found(case)} == {"klab certs renew ha"}


@pytest.mark.parametrize("tokens", [(), (Token("a", -1.0),), (Token("a", -1.0), Token("b", -0.1))])
def test_no_valid_token(plan: Plan, tokens: tuple[Token, ...]) -> None:
    finding = only(facts(healthy(plan), tokens=tokens))
    assert finding.repair == "klab token ha"
    assert finding.evidence == f"of {len(tokens)} bootstrap tokens in kube-system none is valid"


def test_a_token_that_never_expires(plan: Plan) -> None:
    assert found(facts(healthy(plan), tokens=(Token("a", None),))) == []


# --- etcd -------------------------------------------------------------------------------------


def test_a_member_lost(plan: Plan) -> None:
    case = member(healthy(plan), "cp2", status=None, error="connection refused")
    finding = only(case)
    assert (finding.check, finding.node, finding.what) == ("etcd", "cp2", "its etcd member is lost")
    assert finding.evidence == "connection refused; etcd runs there"
    assert finding.repair == "klab ssh ha cp2 -- sudo pkill -x etcd"
    finding = only(told(case, "cp2", processes={}))
    assert finding.evidence == "connection refused; etcd does not run there"
    assert "systemctl restart kubelet" in finding.repair
    assert "/var/log/containers/etcd-" in finding.repair


def test_the_quorum_lost(plan: Plan) -> None:
    case = off(off(healthy(plan), "cp2"), "cp3")
    case = member(case, "cp1", status=status(1, leader=0, healthy=False, errors=("etcdserver: no leader",)))
    case = node(case, "cp1", api="not ready: etcd failed")
    case = endpoint(case, "not ready: etcd failed")
    findings = found(case)
    quorum = next(f for f in findings if f.check == "etcd" and not f.node)
    assert quorum.what == "etcd has lost its quorum: 1 of 3 members answer, 2 are needed"
    assert quorum.repair == "klab start ha cp2"
    assert quorum.evidence == "cp1: etcdserver: no leader; cp2: the machine is stopped; cp3: the machine is stopped"
    lost = {f.node: f.repair for f in findings if f.what == "its etcd member is lost"}
    assert lost == {"cp2": "klab start ha cp2", "cp3": "klab start ha cp3"}
    (api,) = [f for f in findings if f.check == "API"]
    assert (api.node, api.repair) == ("cp1", "klab start ha cp2")


def test_the_quorum_lost_while_all_machines_run(plan: Plan) -> None:
    case = healthy(plan)
    for name in ("cp2", "cp3"):
        case = told(member(case, name, status=None, error="connection refused"), name, processes={})
    assert found(case, "etcd")[0].repair.startswith("klab ssh ha cp2 -- 'sudo pkill -x kube-apiserver; sudo systemctl")


def test_the_quorum_lost_for_good(plan: Plan) -> None:
    case = off(off(healthy(plan), "cp2", NodeState.ABSENT), "cp3", NodeState.ABSENT)
    assert {f.repair for f in found(case, "machines", "etcd")} == {case.recreate}


def test_a_stopped_lab_has_not_lost_its_quorum(plan: Plan) -> None:
    case = healthy(plan)
    for each in plan.nodes:
        case = off(case, each.name)
    finding = only(case)
    assert (finding.check, finding.node, finding.repair) == ("machines", "", "klab start ha")
    unseen = {result.check: result.unseen for result in diagnose(case)}
    assert unseen["API"] == "no control plane runs"
    assert unseen["disk"] == "no machine runs"


def test_a_full_database(plan: Plan) -> None:
    case = healthy(plan)
    assert case.facts.etcd is not None
    for number, name in enumerate(("cp1", "cp2", "cp3"), start=1):
        case = member(case, name, status=status(number, healthy=False, errors=("alarm:NOSPACE",)))
    case = facts(case, etcd=replace(case.facts.etcd, alarms=(Alarm(1, "NOSPACE"), Alarm(3, "NOSPACE"))))
    finding = only(case)
    assert finding.what == "etcd's database is full: nothing can be written"
    assert finding.evidence == "alarm NOSPACE of cp1, cp3; 9 of 2048 MiB used"
    orders = [part.rpartition(".key ")[2] for part in finding.repair.rstrip("'").split(";")]
    assert orders == ["compact 77", "defrag --cluster", "alarm disarm"]


def test_a_corrupt_member_is_replaced(plan: Plan) -> None:
    case = healthy(plan)
    assert case.facts.etcd is not None
    case = facts(case, etcd=replace(case.facts.etcd, alarms=(Alarm(2, "CORRUPT"),)))
    assert only(case).repair == "klab node replace ha cp2"
    # Of one that is no node the membership says more; a second finding is about that.
    case = facts(case, etcd=replace(case.facts.etcd, alarms=(Alarm(0xAB12, "CORRUPT"), Alarm(2, "CORRUPT"))))
    assert (only(case).node, only(case).repair) == ("cp2", "klab node replace ha cp2")
    case = facts(case, etcd=replace(case.facts.etcd, alarms=(Alarm(0xAB12, "CORRUPT"),)))
    assert (only(case).node, only(case).repair) == ("", "klab doctor ha")


def test_the_only_control_plane_cannot_be_replaced(single: Plan) -> None:
    case = healthy(single)
    assert case.facts.etcd is not None
    case = facts(case, etcd=replace(case.facts.etcd, alarms=(Alarm(1, "CORRUPT"),)))
    assert only(case).repair == case.recreate


def test_without_a_cluster_no_node_can_join_again(plan: Plan) -> None:
    case = off(healthy(replace(plan, bootstrap="none")), "w1", NodeState.ABSENT)
    assert only(case).repair == case.recreate


def test_a_member_that_is_no_node(plan: Plan) -> None:
    case = healthy(plan)
    assert case.facts.etcd is not None
    stray = MemberFacts("cp9", planned=False, joined=True, id=0xAB12, error="the plan does not know it")
    finding = only(facts(case, etcd=replace(case.facts.etcd, members=(*case.facts.etcd.members, stray))))
    assert "cp9" in finding.what
    assert finding.repair.endswith("member remove ab12")


def test_a_node_that_is_no_member(plan: Plan) -> None:
    finding = only(member(healthy(plan), "cp3", joined=False))
    assert (finding.node, finding.repair) == ("cp3", "klab node replace ha cp3")


def test_a_member_that_is_not_well(plan: Plan) -> None:
    case = member(healthy(plan), "cp3", status=status(3, healthy=False, errors=("QGET ERROR",)))
    finding = only(case)
    assert (finding.what, finding.evidence) == ("its etcd member is not healthy", "QGET ERROR; etcd runs there")
    assert "pkill -x etcd" in finding.repair
    assert only(process(case, "cp3", "etcd", Process(30.0))).repair == LOOK_AGAIN


# --- the virtual IP and the API ---------------------------------------------------------------


def without_vip(case: CheckContext) -> CheckContext:
    return told(case, "cp1", addresses=("192.168.56.11",))


def test_a_virtual_ip_without_a_holder(plan: Plan) -> None:
    finding = only(without_vip(healthy(plan)))
    assert (finding.check, finding.what) == ("virtual IP", "no node holds it")
    assert finding.evidence == "192.168.56.10 is on none of cp1, cp2, cp3"
    assert finding.repair == "klab ssh ha cp1 -- sudo systemctl restart haproxy keepalived"


def test_keepalived_is_named_as_the_cause(plan: Plan) -> None:
    case = unit(without_vip(healthy(plan)), "cp2", "keepalived")
    case = endpoint(case, "no answer within 5 s")
    assert {f.check for f in found(case)} == {"keepalived", "virtual IP", "API"}
    assert {f.repair for f in found(case)} == {"klab ssh ha cp2 -- sudo systemctl restart keepalived"}


def test_a_virtual_ip_on_two_nodes(plan: Plan) -> None:
    finding = only(told(healthy(plan), "cp3", addresses=("192.168.56.13", "192.168.56.10")))
    assert finding.evidence == "192.168.56.10 is on cp1, cp3"
    assert "ssh ha cp3" in finding.repair


def test_a_silent_node_may_hold_the_virtual_ip(plan: Plan) -> None:
    case = healthy(plan)
    case = replace(case, reports={n: r for n, r in case.reports.items() if n != "cp1"}, silent={"cp1": "hangs"})
    assert found(case, "virtual IP") == []
    assert {r.check: r.unseen for r in diagnose(case)}["virtual IP"] == "not asked: cp1"


def test_an_api_server_down(plan: Plan) -> None:
    case = node(healthy(plan), "cp2", api="connection refused")
    finding = only(case)
    assert (finding.node, finding.evidence) == ("cp2", "connection refused; kube-apiserver runs there")
    assert finding.repair == "klab ssh ha cp2 -- sudo pkill -x kube-apiserver"
    finding = only(told(case, "cp2", processes={"etcd": OLD}))
    assert "kube-apiserver does not run there" in finding.evidence


def test_a_program_that_has_just_started_is_left_to_it(plan: Plan) -> None:
    """To end it would only restart it."""
    case = node(healthy(plan), "cp2", api="connection refused")
    finding = only(process(case, "cp2", "kube-apiserver", Process(12.3)))
    assert finding.evidence == "connection refused; kube-apiserver has just started there, 12 s ago"
    assert finding.repair == LOOK_AGAIN
    for age in (YOUNG_SECONDS, None):
        assert "pkill" in only(process(case, "cp2", "kube-apiserver", Process(age))).repair


def test_a_kubelet_that_has_just_started_is_given_time_to_start_etcd(plan: Plan) -> None:
    """To restart it again would only restart its waits."""
    lost = member(healthy(plan), "cp3", status=None, error="connection refused")
    finding = only(told(lost, "cp3", processes={"kubelet": Process(70.4)}))
    assert finding.evidence.endswith("etcd does not run there yet, the kubelet has just started, 70 s ago")
    assert finding.repair == LOOK_AGAIN
    for age in (SETTLING_SECONDS, None):
        finding = only(told(lost, "cp3", processes={"kubelet": Process(age)}))
        assert finding.evidence.endswith("etcd does not run there")
        assert "systemctl restart kubelet" in finding.repair


def test_a_kubelet_is_given_time_for_a_manifest_that_was_just_written(plan: Plan) -> None:
    lost = member(healthy(plan), "cp3", status=None, error="connection refused")
    lost = told(lost, "cp3", processes={"kubelet": OLD})
    finding = only(told(lost, "cp3", manifests={**lost.reports["cp3"].manifests, "etcd": 9.6}))
    assert finding.evidence.endswith("etcd does not run there yet, its manifest was written 10 s ago")
    assert finding.repair == LOOK_AGAIN
    finding = only(told(lost, "cp3", manifests={**lost.reports["cp3"].manifests, "etcd": SETTLING_SECONDS}))
    assert "systemctl restart kubelet" in finding.repair


def test_a_program_that_answers_by_now_is_left_alone(plan: Plan) -> None:
    works = Process(9000.0, works=True)
    case = member(healthy(plan), "cp3", status=None, error="no answer within 15 s")
    finding = only(process(case, "cp3", "etcd", works))
    assert finding.evidence == "no answer within 15 s; asked there a moment later, etcd answers"
    assert finding.repair == LOOK_AGAIN
    case = node(healthy(plan), "cp2", api="not ready: etcd failed")
    assert only(process(case, "cp2", "kube-apiserver", works)).repair == LOOK_AGAIN


def test_what_explains_a_young_program_comes_before_patience(plan: Plan) -> None:
    case = unit(node(healthy(plan), "cp2", api="connection refused"), "cp2", "containerd")
    case = process(case, "cp2", "kube-apiserver", Process(5.0))
    assert {f.repair for f in found(case)} == {"klab ssh ha cp2 -- sudo systemctl restart containerd"}


def test_an_api_server_down_for_a_reason(plan: Plan) -> None:
    case = unit(node(healthy(plan), "cp2", api="connection refused"), "cp2", "containerd")
    assert {f.repair for f in found(case)} == {"klab ssh ha cp2 -- sudo systemctl restart containerd"}


def test_an_endpoint_down_though_the_api_servers_are_well(plan: Plan) -> None:
    case = healthy(plan)
    finding = only(endpoint(case, "refused"))
    assert finding.what == "the API does not answer at https://192.168.56.10:8443"
    assert finding.repair == "klab ssh ha cp1 -- sudo systemctl restart haproxy keepalived"


def test_nodes_that_lost_their_way_to_the_api_with_the_virtual_ip(plan: Plan) -> None:
    """Nothing is known of their pods; it is the virtual IP that is to be repaired."""
    case = unit(healthy(plan), "cp1", "keepalived")
    case = told(case, "cp1", addresses=("192.168.56.11",))
    case = node(case, "w1", ready=False, unheard=True, why="Kubelet stopped posting node status.")
    waiting = [replace(p, ready=False, why="Running") for p in case.facts.pods or () if p.node == "w1"]
    proxy = PodFacts("kube-system", "kube-proxy-x", "w1", ready=False, why="Running")
    case = pods(case, *waiting, proxy)
    again = "klab ssh ha cp1 -- sudo systemctl restart keepalived"
    assert [(f.check, f.node, f.repair) for f in found(case)] == [
        ("keepalived", "cp1", again), ("virtual IP", "", again), ("nodes", "w1", again)
    ]  # fmt: skip


@pytest.mark.parametrize("pod", STATIC_PODS)
def test_a_manifest_that_is_gone_is_written_again(plan: Plan, pod: str) -> None:
    case = told(healthy(plan), "cp1", manifests={p: 9000.0 for p in STATIC_PODS if p != pod}, processes={})
    case = node(case, "cp1", api="connection refused")
    manifest, api = found(case)
    assert manifest.evidence == f"/etc/kubernetes/manifests/{pod}.yaml is missing"
    assert "kubeadm init phase" in manifest.repair
    assert api.repair == manifest.repair


# --- network, images, nodes, pods -------------------------------------------------------------


def pods(case: CheckContext, *changed: PodFacts) -> CheckContext:
    kept = [p for p in case.facts.pods or () if p.name not in {c.name for c in changed}]
    return facts(case, pods=(*kept, *changed))


def test_flannel_without_a_pod_on_a_node(plan: Plan) -> None:
    case = healthy(plan)
    case = facts(case, pods=tuple(p for p in case.facts.pods or () if p.node != "w1"))
    finding = only(case)
    assert (finding.node, finding.evidence) == ("w1", "flannel runs on cp1, cp2, cp3, w2")
    assert finding.repair == "klab kubectl ha -- rollout restart -n kube-flannel daemonset/kube-flannel-ds"


def test_flannel_gone_altogether(plan: Plan) -> None:
    findings = found(facts(healthy(plan), pods=()))
    assert len(findings) == 5
    assert {f.repair for f in findings} == {"klab create /labs/ha/scenario.yaml --name ha"}
    seat = replace(plan, seat=3)
    assert found(facts(healthy(seat), pods=()))[0].repair.endswith("--name ha --seat 3")


def test_flannel_that_is_not_ready(plan: Plan) -> None:
    case = pods(
        healthy(plan), PodFacts("kube-flannel", "kube-flannel-ds-w1", "w1", ready=False, why="CrashLoopBackOff")
    )
    case = node(told(case, "w1", subnet=False), "w1", ready=False, why="cni plugin not initialized")
    again = "klab kubectl ha -- delete pod -n kube-flannel kube-flannel-ds-w1"
    assert [(f.check, f.repair) for f in found(case)] == [("network", again), ("network", again), ("nodes", again)]


def test_a_cni_configuration_that_is_gone(plan: Plan) -> None:
    finding = only(told(healthy(plan), "w1", cni=("/etc/cni/net.d/99-loopback.conf",)))
    assert finding.evidence == f"{CNI_FILE} is missing; there is /etc/cni/net.d/99-loopback.conf"
    assert finding.repair == (
        r"klab kubectl ha -- get configmap -n kube-flannel kube-flannel-cfg -o 'jsonpath={.data.cni-conf\.json}'"
        f" | klab ssh ha w1 -- sudo tee {CNI_FILE}"
    )


def test_images_that_a_node_lacks(plan: Plan) -> None:
    shipped = plan.kubernetes.versions
    kept = tuple(i for i in shipped.images.values() if "kube-proxy" not in i and "etcd" not in i)
    # A worker needs no etcd.
    finding = only(told(healthy(plan), "w1", images=kept))
    assert finding.evidence == f"containerd lacks {shipped.image('kube-proxy')}"
    assert finding.repair == (
        "klab ssh ha w1 -- sudo ctr -n k8s.io images pull --hosts-dir /etc/containerd/certs.d "
        + shipped.image("kube-proxy")
    )
    assert shipped.image("etcd") in only(told(healthy(plan), "cp1", images=kept)).repair


def test_a_node_whose_images_are_unknown(plan: Plan) -> None:
    (result,) = [r for r in diagnose(told(healthy(plan), "w2", images=None)) if not r.well]
    assert (result.check, result.unseen) == ("images", "containerd does not answer on w2")


def test_a_pod_without_its_image(plan: Plan) -> None:
    case = pods(healthy(plan), PodFacts("default", "web", "w1", ready=False, why="ErrImagePull", images=("ngnix:1",)))
    finding = only(case)
    assert (finding.node, finding.what) == ("w1", "pod default/web cannot get its images: ngnix:1")
    assert finding.repair == "klab kubectl ha -- describe pod -n default web"
    proxy = plan.kubernetes.versions.image("kube-proxy")
    waiting = PodFacts("kube-system", "kube-proxy-1", "w1", ready=False, why="ErrImageNeverPull", images=(proxy,))
    assert only(pods(healthy(plan), waiting)).repair.endswith(
        f"images pull --hosts-dir /etc/containerd/certs.d {proxy}"
    )


def test_nodes_as_the_cluster_sees_them(plan: Plan) -> None:
    finding = only(node(healthy(plan), "w1", cordoned=True))
    assert finding.repair == "klab kubectl ha -- uncordon w1"
    finding = only(node(healthy(plan), "w1", ready=False, why="PLEG is not healthy"))
    assert (finding.what, finding.evidence) == ("it is NotReady", "PLEG is not healthy")
    assert finding.repair == "klab ssh ha w1 -- sudo systemctl restart kubelet"
    finding = only(node(healthy(plan), "w1", registered=False, ready=False, why="it has not registered"))
    assert finding.what == "the cluster does not know it"


def test_versions_that_a_person_has_changed(plan: Plan) -> None:
    now, later = plan.kubernetes.version, "1.99.10"
    case = healthy(plan)
    for name in [n.name for n in plan.nodes]:
        case = node(case, name, kubelet=f"v{later}")
    finding = only(case)
    assert finding.what == f"its nodes have Kubernetes {later}, and klab would add nodes of {now}"
    assert finding.repair == f"klab upgrade ha --to {later}"
    mixed = only(node(case, "w2", kubelet=f"v{now}"))
    assert mixed.what == "its nodes are not of one version of Kubernetes"
    assert f"w1: {later}, w2: {now}; in klab's plan: {now}" in mixed.evidence
    assert mixed.repair == finding.repair


OUTSIDE: dict[str, Any] = {
    "member": False,
    "units": dict.fromkeys(SERVICES, RUNS) | {"kubelet": Unit("loaded", "inactive", "dead", "enabled", "success")},
    "subnet": False,
    "cni": (),
    "manifests": {},
    "processes": {},
    "certificates": (),
}


def test_a_node_that_was_reset_is_one_finding(plan: Plan) -> None:
    case = told(node(healthy(plan), "w1", registered=False, ready=False, why="it has not registered"), "w1", **OUTSIDE)
    case = facts(case, certificates=(*case.facts.certificates, Certificate("w1", "kubelet", None, "refused")))
    finding = only(case)
    assert (finding.node, finding.what) == ("w1", "it is no member of the cluster")
    assert finding.evidence == "it has not registered; /etc/kubernetes/kubelet.conf is missing there"
    assert finding.repair == "klab node join ha w1"
    assert [result.unseen for result in diagnose(case) if result.unseen] == []


def test_so_is_a_control_plane_that_was_reset(plan: Plan) -> None:
    case = node(healthy(plan), "cp1", registered=False, ready=False, why="it has not registered", api="refused")
    case = member(told(case, "cp1", **OUTSIDE), "cp1", joined=False, status=None, error="refused")
    case = pods(case, PodFacts("kube-system", "etcd-cp1", "cp1", ready=False, why="not collected yet"))
    assert only(case).repair == "klab node join ha cp1"


def test_a_node_that_was_reset_has_its_other_services(plan: Plan) -> None:
    case = told(node(healthy(plan), "w1", registered=False, ready=False), "w1", **OUTSIDE)
    assert {f.check for f in found(unit(case, "w1", "containerd"))} == {"containerd", "nodes"}


def test_without_the_api_a_worker_is_believed_and_the_api_repaired_first(plan: Plan) -> None:
    case = endpoint(
        told(node(healthy(plan), "w1", registered=None, ready=None, why="refused"), "w1", **OUTSIDE), "refused"
    )
    findings = found(case)
    assert [(f.check, f.node) for f in findings] == [("API", ""), ("nodes", "w1")]
    assert findings[0].repair == findings[1].repair


def test_one_that_lost_its_files_is_a_member_to_the_cluster(plan: Plan) -> None:
    assert "nodes" not in {f.check for f in found(told(healthy(plan), "cp1", **OUTSIDE))}
    assert "static pods" in {f.check for f in found(told(healthy(plan), "cp1", **OUTSIDE))}


def test_without_a_pod_network_of_klabs_nodes_may_be_not_ready(plan: Plan) -> None:
    plan = replace(plan, kubernetes=replace(plan.kubernetes, cni="none"))
    case = node(healthy(plan), "w1", ready=False, why="cni plugin not initialized")
    case = pods(case, PodFacts("kube-system", "coredns-1", "", ready=False, why="Pending"))
    assert found(case) == []


def test_system_pods(plan: Plan) -> None:
    waiting = PodFacts("kube-system", "coredns-1", "w1", ready=False, why="CrashLoopBackOff")
    assert only(pods(healthy(plan), waiting)).repair == "klab kubectl ha -- delete pod -n kube-system coredns-1"
    static = PodFacts("kube-system", "kube-controller-manager-cp1", "cp1", ready=False, why="CrashLoopBackOff")
    # The kernel cuts the name that pkill looks for.
    assert only(pods(healthy(plan), static)).repair == "klab ssh ha cp1 -- sudo pkill -x kube-controller"
    assert found(pods(healthy(plan), replace(waiting, namespace="default"))) == []
    assert found(pods(off(healthy(plan), "w1"), replace(waiting, name="kube-proxy-1")), "pods") == []


STALE = "Running; kube-scheduler itself answers, only what the API knows of it is stale"


@pytest.mark.parametrize(
    ("scheduler", "kubelet", "repair"),
    [
        (9000.0, 9000.0, "klab ssh ha cp1 -- sudo systemctl restart kubelet"),
        (9000.0, 20.0, LOOK_AGAIN),
        (20.0, 9000.0, LOOK_AGAIN),
    ],
)
def test_a_mirror_that_is_stale(plan: Plan, scheduler: float, kubelet: float, repair: str) -> None:
    """As after a restart of the kubelet: what works is not ended."""
    case = pods(healthy(plan), PodFacts("kube-system", "kube-scheduler-cp1", "cp1", ready=False, why="Running"))
    case = process(case, "cp1", "kube-scheduler", Process(scheduler, works=True))
    finding = only(process(case, "cp1", "kubelet", Process(kubelet)))
    assert (finding.check, finding.evidence, finding.repair) == ("pods", STALE, repair)


def test_a_stale_mirror_whose_kubelet_does_not_run(plan: Plan) -> None:
    case = pods(healthy(plan), PodFacts("kube-system", "kube-scheduler-cp1", "cp1", ready=False, why="Running"))
    works = {"kube-scheduler": Process(9000.0, works=True)}
    kubelet, pod = found(unit(told(case, "cp1", processes=works), "cp1", "kubelet"))
    assert kubelet.repair == pod.repair == "klab ssh ha cp1 -- sudo systemctl restart kubelet"


def test_a_static_pod_of_a_silent_node(plan: Plan) -> None:
    case = pods(healthy(plan), PodFacts("kube-system", "etcd-cp2", "cp2", ready=False, why="Running"))
    case = replace(case, reports={n: r for n, r in case.reports.items() if n != "cp2"}, silent={"cp2": "hangs"})
    assert {f.repair for f in found(case)} == {"klab reboot --force ha cp2"}


def test_a_node_whose_kubelet_has_just_started(plan: Plan) -> None:
    case = node(healthy(plan), "w1", ready=False, why="Kubelet stopped posting node status.")
    assert only(process(case, "w1", "kubelet", Process(3.0))).repair == LOOK_AGAIN


def test_all_of_dns_on_a_machine_that_is_off(plan: Plan) -> None:
    dns = [PodFacts("kube-system", f"coredns-{i}", "cp3", ready=True) for i in (1, 2)]
    case = off(pods(healthy(plan), *dns), "cp3")
    (finding,) = found(case, "pods")
    assert (finding.node, finding.evidence) == ("", "coredns-1 on cp3, coredns-2 on cp3")
    assert finding.repair == "klab kubectl ha -- delete pod -n kube-system -l k8s-app=kube-dns --wait=false"
    # One on its way to another node, or on one, is enough.
    for there in ("", "w1"):
        assert found(pods(case, replace(dns[1], node=there)), "pods") == []
    assert found(pods(healthy(plan), *dns)) == []


@pytest.mark.parametrize("what", ["tokens", "pods"])
def test_what_the_api_does_not_tell_is_not_taken_for_well(plan: Plan, what: str) -> None:
    case = facts(healthy(plan), **{what: None})
    assert found(case) == []
    assert any(r.unseen == "the API server does not answer" for r in diagnose(case))


# --- all of it together -----------------------------------------------------------------------


def test_examine_asks_the_nodes_that_run(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    case = off(healthy(plan), "w2")

    class Machines:
        def ssh(self, name: str, command: list[str], timeout: float, check: bool, stdin: str) -> Completed:
            asked.append(name)
            raise MachineError(f"{name} does not answer ssh")

    monkeypatch.setattr(diagnostics, "collect_facts", lambda *_, **__: case.facts)
    machines: Any = Machines()
    record = Record("id", "ha", "fake", "box", 0, "ready", 0.0)
    results = {r.check: r for r in diagnostics.examine(LabFolder(tmp_path / "ha"), plan, record, machines)}
    assert sorted(asked) == ["cp1", "cp2", "cp3", "w1"]
    assert [f.node for f in results["ssh"].findings] == ["cp1", "cp2", "cp3", "w1"]
    assert [f.node for f in results["machines"].findings] == ["w2"]
