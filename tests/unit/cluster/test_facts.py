"""One look at a lab, whose servers are real ones on this machine; what they say is the test's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.lab_servers import LabServers, etcd_answers, members_of, node, pod, token

from lab.cluster.clients import https
from lab.cluster.clients.etcd import CLIENT_PORT
from lab.cluster.clients.ntp import NTP_PORT
from lab.cluster.observe import collect
from lab.cluster.observe.collect import DAY, KUBELET_PORT, collect_facts
from lab.cluster.observe.facts import (
    ClusterFacts,
    EtcdFacts,
    MemberFacts,
    certificate_line,
    endpoint_line,
    etcd_line,
    pod_line,
    token_line,
)
from lab.cluster.secrets import load_or_make
from lab.errors import HostError
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.plan.model import API_PORT, Node, Plan
from lab.process import Completed
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder, Record

RECORD = Record("id", "ha", "fake", "box", 0, "ready", 0.0)
SECONDS = 20.0  # how long a probe may take: a busy machine is no dead one


class Machines:
    """Machines that know their states, why those that are paused are, and nothing else."""

    def __init__(self, plan: Plan, **off: NodeState) -> None:
        self.known = {n.name: off.get(n.name, NodeState.RUNNING) for n in plan.nodes}

    def states(self) -> dict[str, NodeState]:
        return self.known

    def halted(self) -> dict[str, str]:
        return {name: "the disk is full" for name, state in self.known.items() if state == NodeState.PAUSED}


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    text = "version: 1\nname: ha\ntopology: {control_planes: 3, workers: 1}\n"
    return decide(parse_scenario(text, catalog), catalog)


@pytest.fixture
def folder(tmp_path: Path) -> LabFolder:
    return LabFolder(tmp_path / "ha")


@pytest.fixture
def servers(folder: LabFolder, plan: Plan) -> Iterator[LabServers]:
    found = LabServers(folder, plan)
    yield found
    found.close()


@pytest.fixture
def neighbours(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> Callable[[list[dict[str, Any]]], None]:
    """What `ip neigh` says; at first that cp2 answers for the virtual IP."""
    asked: list[list[dict[str, Any]]] = [[{"lladdr": plan.control_planes[1].mac, "state": ["REACHABLE"]}]]

    def run(argv: list[str], **_: object) -> Completed:
        assert plan.load_balancer is not None
        assert argv == ["ip", "-json", "neigh", "show", str(plan.load_balancer.vip)]
        return Completed(tuple(argv), 0, json.dumps(asked[0]), "")

    monkeypatch.setattr(collect.process, "run", run)
    return lambda entries: asked.__setitem__(0, entries)


@pytest.fixture
def see(folder: LabFolder, plan: Plan, servers: LabServers, neighbours: object) -> Callable[..., ClusterFacts]:
    def see(*, record: Record = RECORD, **off: NodeState) -> ClusterFacts:
        machines: Any = Machines(plan, **off)
        return collect_facts(folder, plan, record, machines, seconds=SECONDS, reach=servers.reach)

    return see


def plane(plan: Plan, name: str) -> Node:
    return next(n for n in plan.control_planes if n.name == name)


# --- a healthy lab ----------------------------------------------------------------------------


def test_a_healthy_lab(see: Callable[..., ClusterFacts], plan: Plan) -> None:
    facts = see()
    assert facts.unseen == ()
    assert facts.ready
    assert not facts.stopped
    assert not facts.quorum_lost
    assert facts.endpoint is not None
    assert (facts.endpoint.error, facts.endpoint.holder) == ("", "cp2")
    assert [(n.name, n.api, n.ready, n.kubelet) for n in facts.nodes] == [
        ("cp1", "", True, "v1.35.4"),
        ("cp2", "", True, "v1.35.4"),
        ("cp3", "", True, "v1.35.4"),
        ("w1", None, True, "v1.35.4"),
    ]
    assert facts.etcd is not None
    assert facts.etcd.leader == "cp1"
    assert facts.etcd.has_quorum
    assert (len(facts.etcd.answering), len(facts.etcd.voters), facts.etcd.needed) == (3, 3, 2)
    assert all(m.joined and m.planned and m.status and m.status.healthy for m in facts.etcd.members)
    shown = {(c.node, c.what): c.days for c in facts.certificates}
    assert set(shown) == {
        *((n.name, what) for n in plan.control_planes for what in ("API server", "etcd", "kubelet")),
        ("w1", "kubelet"),
        ("", "klab's admin"),
    }
    assert all(days is not None and 360 < days < 366 for days in shown.values())
    assert facts.token is not None
    assert facts.token.id == "abcdef"
    assert facts.token.hours == pytest.approx(12, abs=0.1)
    assert facts.pods is not None
    assert all(p.ready for p in facts.pods)


def test_its_lines(see: Callable[..., ClusterFacts]) -> None:
    facts = see()
    assert endpoint_line(facts) == "https://192.168.56.10:8443 ok, 192.168.56.10 is held by cp2"
    assert etcd_line(facts) == "3 of 3 members answer, 2 are needed; leader cp1; no alarm"
    assert certificate_line(facts).startswith("the soonest expires in 36")
    assert token_line(facts) == "12.0 hours left"
    assert pod_line(facts) == "all ready"


def test_one_control_plane_has_no_virtual_ip(tmp_path: Path, catalog: Catalog) -> None:
    plan = decide(parse_scenario("version: 1\nname: one\n", catalog), catalog)
    folder = LabFolder(tmp_path / "one")
    servers = LabServers(folder, plan)
    machines: Any = Machines(plan)
    facts = collect_facts(folder, plan, RECORD, machines, seconds=SECONDS, reach=servers.reach)
    servers.close()
    assert facts.ready
    assert endpoint_line(facts) == "https://192.168.56.11:6443 ok"


# --- machines that do not run -----------------------------------------------------------------


def test_a_stopped_lab_is_not_asked(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    facts = see(**{n.name: NodeState.STOPPED for n in plan.nodes})
    assert servers.knocked == []
    assert facts.stopped
    assert not facts.ready
    assert not facts.quorum_lost
    assert facts.unseen == ()
    assert endpoint_line(facts) == "https://192.168.56.10:8443 does not answer: no control plane runs"
    assert etcd_line(facts) == "no control plane runs"
    assert token_line(facts) == pod_line(facts) == "cannot be seen"


def test_only_machines_that_run_are_asked(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    facts = see(cp1=NodeState.PAUSED, w1=NodeState.CRASHED)
    asked = {address for address, _ in servers.knocked}
    assert asked.isdisjoint({plan.nodes[0].address, plan.nodes[3].address})
    assert facts.etcd is not None
    assert facts.etcd.members[0].error == "the machine is paused"
    assert [node.halted for node in facts.nodes if node.halted] == ["the disk is full"]
    assert not facts.ready
    assert facts.etcd.has_quorum


def test_the_quorum_lost_is_said_clearly(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    said = etcd_answers(plan, 1)["/v3/maintenance/status"][1]
    door = servers.doors[plan.nodes[0].address, CLIENT_PORT]
    door.answers["/v3/maintenance/status"] = (200, said | {"leader": "0", "errors": ["etcdserver: no leader"]})
    door.answers["/health"] = (503, '{"health":"false","reason":"RAFT NO LEADER"}')
    servers.answer("/readyz", 500, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed")
    facts = see(cp2=NodeState.STOPPED, cp3=NodeState.STOPPED)
    words = "etcd has lost its quorum: 1 of 3 members answer, 2 are needed; klab start ha cp2 starts one"
    assert facts.quorum_lost == etcd_line(facts) == words
    assert facts.endpoint is not None
    assert facts.endpoint.error == "not ready: etcd failed: reason withheld"
    assert not any("alarm" in each for each in door.asked)  # nobody could agree on an answer


def test_a_quorum_lost_though_all_machines_run(
    see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan
) -> None:
    for name in ("cp2", "cp3"):
        servers.shut(plane(plan, name).address, CLIENT_PORT)
    facts = see()
    assert "1 of 3 members answer, 2 are needed; klab doctor ha finds the cause" in facts.quorum_lost


def test_a_machine_that_is_gone_is_not_started(see: Callable[..., ClusterFacts]) -> None:
    facts = see(cp2=NodeState.ABSENT, cp3=NodeState.STOPPED)
    assert "klab start ha cp3" in facts.quorum_lost


def test_members_that_follow_nobody(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    for number, each in enumerate(plan.control_planes, start=1):
        said = etcd_answers(plan, number, leader=0)["/v3/maintenance/status"]
        servers.doors[each.address, CLIENT_PORT].answers["/v3/maintenance/status"] = said
    assert see().quorum_lost == "etcd has no leader: 3 of 3 members answer; an election takes seconds"


def test_when_the_provider_is_silent_the_rest_is_seen(
    see: Callable[..., ClusterFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Machines) -> dict[str, NodeState]:
        raise HostError("libvirtd does not answer")

    monkeypatch.setattr(Machines, "states", fail)
    facts = see()
    assert facts.unseen == ("machines: libvirtd does not answer",)
    assert {n.machine for n in facts.nodes} == {"unknown"}
    assert all(n.ready for n in facts.nodes)
    assert not facts.ready


@pytest.mark.parametrize(("accelerated", "seconds"), [(True, 5.0), (False, 15.0)])
def test_an_emulated_lab_is_given_more_time_to_answer(
    folder: LabFolder,
    plan: Plan,
    servers: LabServers,
    neighbours: object,
    monkeypatch: pytest.MonkeyPatch,
    accelerated: bool,
    seconds: float,
) -> None:
    given: set[float] = set()

    class Noting(https.Https):
        def __init__(self, files: Any, reach: Any, allowed: float) -> None:
            given.add(allowed)
            super().__init__(files, reach, allowed)

    monkeypatch.setattr(collect, "Https", Noting)
    machines: Any = Machines(plan)
    collect_facts(folder, plan, replace(RECORD, accelerated=accelerated), machines, reach=servers.reach)
    assert given == {seconds}


@pytest.mark.parametrize("bootstrap", ["prepared", "none"])
def test_without_a_cluster_of_klabs_there_are_only_machines(
    folder: LabFolder, plan: Plan, servers: LabServers, bootstrap: Any
) -> None:
    machines: Any = Machines(plan)
    facts = collect_facts(folder, replace(plan, bootstrap=bootstrap), RECORD, machines, reach=servers.reach)
    assert {port for _, port in servers.knocked} == {NTP_PORT}
    assert facts.endpoint is facts.etcd is None
    assert facts.ready


def test_a_lab_without_keys_raises_nothing(tmp_path: Path, plan: Plan, neighbours: object, servers: LabServers) -> None:
    machines: Any = Machines(plan)
    facts = collect_facts(LabFolder(tmp_path / "empty"), plan, RECORD, machines, seconds=SECONDS, reach=servers.reach)
    assert facts.endpoint is not None
    assert "no such file" in facts.endpoint.error
    assert facts.etcd is not None
    assert "the etcd CA" in facts.etcd.error
    assert facts.certificates[-1].days is None
    assert "cannot be read" in facts.certificates[-1].error
    assert certificate_line(facts) == "none could be seen"


# --- the endpoint -----------------------------------------------------------------------------


def test_the_cluster_is_seen_past_a_dead_endpoint(
    see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan
) -> None:
    servers.shut(*plan.api_endpoint)
    facts = see()
    assert facts.endpoint is not None
    assert facts.endpoint.error == "connection refused"
    assert all(n.ready for n in facts.nodes)
    assert facts.token is not None
    assert not facts.ready


def test_one_api_server_down(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    servers.shut(plane(plan, "cp2").address, API_PORT)
    facts = see()
    assert [n.api for n in facts.nodes] == ["", "connection refused", "", None]
    assert facts.ready


def test_no_api_server_at_all(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    servers.shut(*plan.api_endpoint)
    for each in plan.control_planes:
        servers.shut(each.address, API_PORT)
    facts = see()
    assert facts.tokens is facts.pods is None
    assert {n.ready for n in facts.nodes} == {None}
    assert facts.unseen == tuple(f"{what}: connection refused" for what in ("nodes", "pods", "bootstrap tokens"))
    assert not facts.ready


@pytest.mark.parametrize(
    ("state", "answers", "holder"),
    [
        (["REACHABLE"], True, "cp3"),
        (["STALE"], True, "cp3"),
        (["REACHABLE"], False, "cp3"),
        (["STALE"], False, ""),  # may be about who held it before
        (["FAILED"], True, ""),
        (["INCOMPLETE"], False, ""),
    ],
)
def test_who_holds_the_virtual_ip(
    see: Callable[..., ClusterFacts],
    servers: LabServers,
    plan: Plan,
    neighbours: Callable[[list[dict[str, Any]]], None],
    state: list[str],
    answers: bool,
    holder: str,
) -> None:
    neighbours([{"lladdr": plane(plan, "cp3").mac.upper(), "state": state}])
    if not answers:
        servers.shut(*plan.api_endpoint)
    facts = see()
    assert facts.endpoint is not None
    assert facts.endpoint.holder == holder
    assert ("is held by cp3" if holder else "who holds 192.168.56.10 cannot be seen") in endpoint_line(facts)


def test_a_stopped_node_holds_no_virtual_ip(
    see: Callable[..., ClusterFacts], plan: Plan, neighbours: Callable[[list[dict[str, Any]]], None]
) -> None:
    neighbours([{"lladdr": plane(plan, "cp3").mac, "state": ["STALE"]}])
    facts = see(cp3=NodeState.STOPPED)
    assert facts.endpoint is not None
    assert facts.endpoint.holder == ""


def test_without_ip_the_holder_is_unknown(see: Callable[..., ClusterFacts], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> Completed:
        raise HostError("ip is not installed")

    monkeypatch.setattr(collect.process, "run", missing)
    facts = see()
    assert facts.endpoint is not None
    assert (facts.endpoint.error, facts.endpoint.holder) == ("", "")


# --- etcd -------------------------------------------------------------------------------------


def test_membership_and_plan_are_compared(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    stray = {"ID": "9", "name": "cp9", "peerURLs": ["https://192.168.56.99:2380"], "clientURLs": []}
    members = [*members_of(plan)[:2], stray]
    for each in plan.control_planes:
        servers.doors[each.address, CLIENT_PORT].answers["/v3/cluster/member/list"] = (200, {"members": members})
    facts = see()
    assert facts.etcd is not None
    assert {m.name: (m.planned, m.joined) for m in facts.etcd.members} == {
        "cp1": (True, True),
        "cp2": (True, True),
        "cp3": (True, False),
        "cp9": (False, True),
    }
    # cp3 answers but has no vote; cp9 has one and is silent.
    assert (len(facts.etcd.answering), len(facts.etcd.voters)) == (2, 3)
    assert "cp9 is not a node of this lab" in etcd_line(facts)
    assert "cp3 is not a member" in etcd_line(facts)


def test_alarms_and_unhealthy_members_are_named(
    see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan
) -> None:
    for each in plan.control_planes:
        door = servers.doors[each.address, CLIENT_PORT]
        door.answers["/v3/maintenance/alarm"] = (200, {"alarms": [{"memberID": "1", "alarm": "NOSPACE"}]})
    servers.doors[plan.nodes[0].address, CLIENT_PORT].answers["/health"] = (503, '{"reason":"ALARM NOSPACE"}')
    facts = see()
    assert facts.etcd is not None
    assert [(a.member, a.kind) for a in facts.etcd.alarms] == [(1, "NOSPACE")]
    assert etcd_line(facts).endswith('cp1: {"reason":"ALARM NOSPACE"}; alarm NOSPACE')


def test_alarms_that_cannot_be_asked_for(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    for each in plan.control_planes:
        servers.doors[each.address, CLIENT_PORT].answers["/v3/maintenance/alarm"] = (503, {"message": "later"})
    facts = see()
    assert facts.unseen == ("etcd's alarms: etcd refuses to list its alarms",)
    assert facts.etcd is not None
    assert facts.etcd.has_quorum


def test_a_learner_has_no_vote() -> None:
    learner = MemberFacts("cp2", planned=True, joined=True, learner=True)
    assert EtcdFacts((MemberFacts("cp1", planned=True, joined=True), learner)).needed == 1


# --- certificates and tokens ------------------------------------------------------------------


def test_an_expired_certificate_is_seen_all_the_same(tmp_path: Path, plan: Plan, neighbours: object) -> None:
    folder = LabFolder(tmp_path / "old")
    servers = LabServers(folder, plan, days=-3)
    machines: Any = Machines(plan)
    facts = collect_facts(folder, plan, RECORD, machines, seconds=SECONDS, reach=servers.reach)
    servers.close()
    assert facts.soonest is not None
    assert facts.soonest.days == pytest.approx(-3, abs=0.1)
    assert certificate_line(facts).startswith("EXPIRED 3 days ago: ")
    assert facts.endpoint is not None
    assert facts.endpoint.error == "its certificate is refused: certificate has expired"


def test_certificates_and_tokens_are_judged_by_the_guests_clocks(
    see: Callable[..., ClusterFacts], servers: LabServers
) -> None:
    behind = time.time() - 10 * DAY
    servers.set_clock(behind)
    servers.answer("/api/v1/namespaces/kube-system/secrets", 200, {"items": [token("abcdef", hours=5, now=behind)]})
    facts = see()
    assert facts.guest_time == pytest.approx(behind, abs=1)
    assert facts.token is not None
    assert facts.token.hours == pytest.approx(5, abs=0.1)
    assert facts.soonest is not None
    assert facts.soonest.days == pytest.approx(375, abs=1)


def test_an_api_server_that_is_not_ready_tells_the_time_all_the_same(
    see: Callable[..., ClusterFacts], servers: LabServers
) -> None:
    servers.set_clock(time.time() - 10 * DAY)
    servers.answer("/readyz", 500, "[-]etcd failed: reason withheld")
    assert see().guest_time == pytest.approx(time.time() - 10 * DAY, abs=60)


@pytest.mark.parametrize("date", [None, "", "soon"])
def test_a_server_that_tells_no_time(date: str | None) -> None:
    assert https.clock(date) is None


def test_where_no_api_server_tells_the_time_the_labs_timeline_does(
    see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan
) -> None:
    now = time.time()
    for each in plan.control_planes:
        servers.shut(each.address, API_PORT)
    facts = see(record=replace(RECORD, dilation=0.5, epoch=now - 20 * DAY))
    assert facts.guest_time == pytest.approx(now - 10 * DAY, abs=60)
    assert facts.soonest is not None
    assert facts.soonest.days == pytest.approx(375, abs=1)


@pytest.mark.parametrize(
    ("items", "line"),
    [
        (list, "none; klab token ha makes one"),
        (lambda: [token("a", hours=-1)], "expired; klab token ha makes one"),
        (lambda: [token("a", hours=2), token("b", hours=30)], "30.0 hours left"),
        (lambda: [token("a", hours=2), token("b", hours=None)], "never expires"),
        (lambda: [token("a", hours=2), token("b", hours=30, usage="false")], "2.0 hours left"),
        (
            lambda: [{"data": {"usage-bootstrap-authentication": "dHJ1ZQ==", "expiration": "c29vbg=="}}],
            "none; klab token ha",
        ),
        (lambda: [{"data": {"usage-bootstrap-authentication": "%"}}, {}], "none; klab token ha"),
    ],
)
def test_tokens(
    see: Callable[..., ClusterFacts], servers: LabServers, items: Callable[[], list[Any]], line: str
) -> None:
    servers.answer("/api/v1/namespaces/kube-system/secrets", 200, {"items": items()})
    assert token_line(see()).startswith(line)


def test_a_door_without_a_certificate(see: Callable[..., ClusterFacts], servers: LabServers, plan: Plan) -> None:
    servers.shut(plan.nodes[3].address, KUBELET_PORT)
    silent = [c for c in see().certificates if c.days is None]
    assert [(c.node, c.what, c.error) for c in silent] == [("w1", "kubelet", "connection refused")]


# --- nodes and pods ---------------------------------------------------------------------------


def test_nodes_that_are_not_ready_cordoned_unknown_or_under_pressure(
    see: Callable[..., ClusterFacts], servers: LabServers
) -> None:
    pressed = node("cp3")
    pressed["status"]["conditions"][0]["status"] = "True"
    items = [node("cp1", ready=False, why="Kubelet stopped\n posting."), node("cp2", unschedulable=True), pressed]
    servers.answer("/api/v1/nodes", 200, {"items": items})
    first, second, third, fourth = see().nodes
    assert (first.ready, first.why) == (False, "Kubelet stopped posting.")
    assert second.cordoned
    assert third.pressures == ("DiskPressure",)
    assert (fourth.registered, fourth.ready, fourth.why) == (False, False, "it has not registered")


def test_pods_that_wait(see: Callable[..., ClusterFacts], servers: LabServers) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}}
    items = [
        pod("coredns-1", "kube-system", "w1", ready=False, containerStatuses=[{"image": "x:1", "state": waiting}]),
        pod("gone", "kube-system", "cp1", ready=False),
        pod("job", "default", "w1", ready=False, phase="Succeeded"),
        pod("new", "default", "", ready=False, phase="Pending"),
    ]
    servers.answer("/api/v1/pods", 200, {"items": items})
    facts = see(cp1=NodeState.STOPPED)
    assert facts.pods is not None
    coredns, _, job, new = facts.pods
    assert (coredns.images, coredns.why) == (("x:1",), "ImagePullBackOff back-off")
    assert job.ready
    assert (new.ready, new.why, new.system) == (False, "Pending", False)
    assert pod_line(facts) == "1 not ready: coredns-1 (ImagePullBackOff back-off)"


STRANGE: list[Any] = [None, 1, "text", [], {}, {"metadata": None}, {"metadata": {"name": 1}}, {"data": 1}]
STRANGE += [{"metadata": {"name": "cp1", "namespace": "x"}, **part} for part in (
    {"status": []}, {"status": {"conditions": 1}}, {"status": {"conditions": ["x"]}}, {"spec": 1},
    {"status": {"containerStatuses": ["x"]}}, {"status": {"containerStatuses": [{"state": {"waiting": 1}}]}},
    {"data": {"usage-bootstrap-authentication": "dHJ1ZQ==", "expiration": "eA=="}},
)]  # fmt: skip


@pytest.mark.parametrize("item", STRANGE)
def test_what_a_guest_answers_in_another_shape_is_left_out(
    see: Callable[..., ClusterFacts], servers: LabServers, item: object
) -> None:
    paths = ("/api/v1/nodes", "/api/v1/pods", "/api/v1/namespaces/kube-system/secrets")
    for path in paths:
        servers.answer(path, 200, {"items": [item]})
    assert not see().ready


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        *(("/v3/cluster/member/list", {"members": found}) for found in (1, ["x"], [{"ID": "x"}], [{"peerURLs": 1}])),
        *(("/v3/maintenance/status", found) for found in ({"header": 1}, {"leader": {}}, {"errors": 1})),
    ],
)
def test_what_answers_in_etcds_place_is_told(
    see: Callable[..., ClusterFacts], servers: LabServers, path: str, answer: dict[str, Any]
) -> None:
    for (_, port), door in servers.doors.items():
        if port == CLIENT_PORT:
            door.answers[path] = (200, answer)
    seen = see().etcd
    assert seen is not None
    assert "the server there is not etcd" in [seen.error, *(member.error for member in seen.members)]


def test_an_answer_that_is_not_a_list(see: Callable[..., ClusterFacts], servers: LabServers) -> None:
    servers.answer("/api/v1/nodes", 200, {"kind": "Status"})
    servers.answer("/api/v1/pods", 403, {"message": "pods is forbidden"})
    assert see().unseen == ("nodes: the answer is not a list", "pods: 403 pods is forbidden")


def test_nobody_speaks_for_the_guests_but_their_servers(folder: LabFolder, plan: Plan) -> None:
    """All answers come through the lab's CA: another lab at the same addresses is not taken for this one."""
    other = LabServers(LabFolder(folder.path.parent / "other"), plan)
    load_or_make(folder)
    machines: Any = Machines(plan)
    facts = collect_facts(folder, plan, RECORD, machines, seconds=SECONDS, reach=other.reach)
    other.close()
    assert facts.endpoint is not None
    assert "its certificate is refused" in facts.endpoint.error
    assert facts.etcd is not None
    assert facts.etcd.answering == ()
