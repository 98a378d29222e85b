"""Whether a lab is really there again after a restore: asked of real servers, over real HTTPS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lab_servers import node, pod
from support.ready_lab import ReadyLab

from lab.cluster.clients.api import UnreachableError
from lab.cluster.clients.etcd import Etcd
from lab.cluster.wait.ready import ETCD_PODS, Readiness, dns_question
from lab.errors import NotReadyInTime
from lab.machines.protocol import NodeState
from lab.snapshots.commands import restore, take
from lab.snapshots.verify import Agreement

NSLOOKUP = " ".join(dns_question("10.96.0.10"))
STATUS = "/v3/maintenance/status"


@pytest.fixture
def ready(tmp_path: Path, no_pauses: None) -> Iterator[ReadyLab]:
    made = ReadyLab(tmp_path)
    yield made
    made.close()


def test_everything_is_asked_after_the_machines_went_back(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    ready.endpoint.asked.clear()
    done = restore(ready.lab, "first")
    assert done.verification.full
    assert list(done.asked) == [
        "the API server answers",
        "every node is Ready",
        "system pods are ready",
        "every kubelet answers",
        "every etcd member is healthy",
        "cluster DNS answers on every node",
        "etcd's members agree",
    ]
    for name in ("cp1", "cp2", "cp3", "w1"):
        assert f"/api/v1/nodes/{name}/proxy/healthz" in ready.endpoint.asked
    for name in ("cp1", "cp2", "cp3"):
        assert any(line.startswith(STATUS) for line in ready.etcd(name).asked)
    assert done.warnings == ()
    assert done.verification.leases() == []


def test_it_is_said_that_the_lab_is_back_before_its_automatic_snapshot_is_finished(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    ready.events.clear()
    restore(ready.lab, "first")
    said = [(e.node, e.phase, e.state) for e in ready.events]
    told = said.index(("", "back", "note"))
    assert told < said.index(("", "digests", "begin"))
    assert sorted(node for node, *rest in said[:told] if rest == ["ready", "done"]) == ["cp1", "cp2", "cp3", "w1"]
    (note,) = ready.notes
    assert note.startswith("back: Ready after ")
    ready.events.clear()
    restore(ready.lab, "first", keep=False)
    assert ready.notes == [], "there is nothing left to wait for"


def fails(ready: ReadyLab, **changes: Any) -> NotReadyInTime:
    """The error of a restore of a lab that was Ready when its snapshot was taken; it must be as it was before."""
    names = [m.name for m in ready.snapshot_store.manifests()]
    with pytest.raises(NotReadyInTime) as caught:
        restore(ready.impatient(**changes), "first")
    assert caught.value.details[-1] == "the lab is as it was before"
    assert [m.name for m in ready.snapshot_store.manifests()] == names
    assert set(ready.machines.states().values()) == {NodeState.RUNNING}
    return caught.value


def break_endpoint(ready: ReadyLab) -> None:
    ready.servers.answer("/readyz", 500, "[-]etcd failed")


def break_node(ready: ReadyLab) -> None:
    nodes = [node(n.name, ready=n.name != "w1", why="container runtime is down") for n in ready.plan.nodes]
    ready.servers.answer("/api/v1/nodes", 200, {"items": nodes})


def break_kubelet(ready: ReadyLab) -> None:
    ready.servers.answer("/api/v1/nodes/w1/proxy/healthz", 502, {"message": "dial tcp: connection refused"})


def break_etcd_pod(ready: ReadyLab) -> None:
    pods = [pod(f"etcd-{n.name}", "kube-system", n.name) for n in ready.plan.control_planes if n.name != "cp3"]
    ready.servers.answer(ETCD_PODS, 200, {"items": pods})


def break_member(ready: ReadyLab) -> None:
    ready.etcd("cp2").answers["/health"] = (503, '{"health":"false","reason":"RAFT NO LEADER"}')


def break_agreement(ready: ReadyLab) -> None:
    status = ready.etcd("cp3").answers[STATUS][1]
    ready.etcd("cp3").answers[STATUS] = (200, {**status, "leader": "77"})


@pytest.mark.parametrize(
    ("breaks", "what", "detail"),
    [
        (break_endpoint, "the API server answers", "500"),
        (break_node, "every node is Ready", "w1: container runtime is down"),
        (break_kubelet, "every kubelet answers", "w1: "),
        (break_etcd_pod, "every etcd member is healthy", "etcd on cp3 is not ready"),
        (break_member, "etcd's members agree", "etcd on cp2 is not healthy"),
        (break_agreement, "etcd's members agree", "etcd on cp3 follows 4d"),
    ],
)
def test_what_does_not_come_back_is_named_and_leads_back(
    ready: ReadyLab, breaks: Callable[[ReadyLab], None], what: str, detail: str
) -> None:
    take(ready.lab, "first")
    breaks(ready)
    error = fails(ready)
    said = "\n".join(error.details)
    assert what in said
    assert detail in said
    assert error.hint


def test_dns_that_does_not_answer(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    assert ready.plan.kubernetes.dns_address is not None
    error = fails(ready, open_machines=ready.opener(answers={NSLOOKUP: (1, "")}))
    said = "\n".join(error.details)
    assert "cluster DNS answers on every node" in said
    assert "w1: kubernetes.default" in said


def test_whoever_answers_slowly_keeps_nobody_else_waiting(ready: ReadyLab, monkeypatch: pytest.MonkeyPatch) -> None:
    take(ready.lab, "first")
    asked_again = threading.Event()
    looks: list[str] = []
    slow: list[bool] = []

    def hesitant(_readiness: Readiness) -> list[str]:
        looks.append("look")
        if len(looks) == 1:
            return ["kube-system/coredns-1: Pending"]
        asked_again.set()
        return []

    def slow_host(_readiness: Readiness) -> list[str]:
        slow.append(asked_again.wait(30))
        return []

    monkeypatch.setattr(Readiness, "system_pods", hesitant)
    monkeypatch.setattr(Readiness, "kubelets", slow_host)
    assert restore(ready.lab, "first", keep=False).verification.full
    assert slow == [True]


# --- etcd -------------------------------------------------------------------------------------------------


def agreement(ready: ReadyLab) -> Agreement:
    planes = [n.name for n in ready.plan.control_planes]
    return Agreement(Etcd(ready.folder, ready.plan, reach=ready.servers.reach), planes)


def at_revision(ready: ReadyLab, name: str, *revisions: int) -> None:
    """Let a member be at these revisions, one after another, and stay at the last."""
    known = ready.etcd(name).answers[STATUS][1]
    status = known() if callable(known) else known
    left = list(revisions)

    def answer() -> Any:
        revision = left.pop(0) if len(left) > 1 else left[0]
        return {**status, "header": {**status["header"], "revision": str(revision)}}

    ready.etcd(name).answers[STATUS] = (200, answer)


def test_members_that_have_every_write_agree(ready: ReadyLab) -> None:
    assert agreement(ready).missing() == []


def test_members_are_asked_side_by_side(ready: ReadyLab) -> None:
    all_asked = threading.Barrier(3, timeout=30)
    for name in ("cp1", "cp2", "cp3"):
        status = ready.etcd(name).answers[STATUS][1]
        ready.etcd(name).answers[STATUS] = (200, lambda status=status: all_asked.wait() >= 0 and status)
    assert agreement(ready).missing() == []


def test_a_member_that_is_behind_is_waited_for(ready: ReadyLab) -> None:
    at_revision(ready, "cp1", 90)
    at_revision(ready, "cp2", 100)
    at_revision(ready, "cp3", 80, 85, 120)
    judge = agreement(ready)
    assert judge.missing() == [
        "etcd on cp1 is at revision 90, another was at 100",
        "etcd on cp3 is at revision 85, another was at 100",
    ]
    at_revision(ready, "cp1", 130)
    # What was written since the first look does not count: a cluster at work would never agree.
    at_revision(ready, "cp2", 140)
    assert judge.missing() == []


def test_a_member_that_does_not_answer(ready: ReadyLab) -> None:
    ready.servers.shut(ready.plan.known("cp2").address, 2379)
    (line,) = agreement(ready).missing()
    assert line.startswith("etcd on cp2: ")


# --- leases, which are watched afterwards -------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.snapshots.verify.LEASE_SECONDS", 3.0)


@pytest.mark.usefixtures("short")
def test_a_lease_that_is_not_renewed_names_its_node(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    ready.stale.add("w1")
    done = restore(ready.lab, "first")
    assert done.verification.leases() == ["w1: not renewed since the wait began"]


@pytest.mark.usefixtures("short")
def test_a_node_that_is_lost_after_all_is_named(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    done = restore(ready.lab, "first")
    break_node(ready)
    assert done.verification.leases() == ["w1: container runtime is down"]


@pytest.mark.usefixtures("short")
def test_an_api_server_that_is_lost_after_all_is_said(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    done = restore(ready.lab, "first")
    ready.servers.answer("/api/v1/nodes", 503, {"message": "no leader"})
    assert done.verification.leases() == ["GET /api/v1/nodes: 503 no leader"]


def test_an_api_server_that_hesitates_is_asked_again(ready: ReadyLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a slow guest's, the first look at the leases may find no answer: that is no reason to take all back."""
    take(ready.lab, "first")
    looks = Readiness.leases
    failed: list[str] = []

    def hesitant(readiness: Readiness) -> list[str]:
        if not failed:
            failed.append("no answer")
            raise UnreachableError("the API server does not answer: timed out")
        return looks(readiness)

    monkeypatch.setattr(Readiness, "leases", hesitant)
    done = restore(ready.lab, "first")
    assert failed
    assert done.verification.full
    assert done.verification.leases() == []


def test_a_lab_is_not_taken_for_broken_at_the_first_look(ready: ReadyLab, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Readiness.system_pods
    failed: list[str] = []

    def hesitant(readiness: Readiness) -> list[str]:
        if not failed:
            failed.append("no answer")
            raise UnreachableError("the API server does not answer: timed out")
        return looks(readiness)

    monkeypatch.setattr(Readiness, "system_pods", hesitant)
    assert take(ready.lab, "first").manifest.missing == ()
    assert failed


# --- labs that cannot be Ready ---------------------------------------------------------------------------------


def test_a_lab_that_was_not_ready_is_not_waited_for(ready: ReadyLab) -> None:
    break_node(ready)
    taken = take(ready.lab, "broken").manifest
    assert taken.missing == ("w1: container runtime is down",)
    done = restore(ready.impatient(), "broken")
    assert not done.verification.full
    assert list(done.asked) == ["every machine answers ssh"]
    assert done.warnings == (
        "the lab was not Ready when this snapshot was taken, and is as it was then",
        "w1: container runtime is down",
    )
    assert done.verification.leases() == []


def test_the_automatic_snapshot_of_a_broken_lab_can_be_brought_back(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    good = ready.endpoint.answers["/api/v1/nodes"]
    break_node(ready)
    before = restore_of_a_lab_that_recovers(ready, good)
    assert before.missing == ("w1: container runtime is down",)
    break_node(ready)
    assert not restore(ready.impatient(), before.name).verification.full


def restore_of_a_lab_that_recovers(ready: ReadyLab, good: Any) -> Any:
    """Bring a broken lab back; its API server tells good news as soon as machines have been switched."""
    sick = ready.endpoint.answers["/api/v1/nodes"]

    def nodes() -> Any:
        return good[1] if any(e.phase == "resume" for e in ready.events) else sick[1]

    ready.events.clear()
    ready.servers.answer("/api/v1/nodes", 200, nodes)
    auto = restore(ready.lab, "first").auto
    assert auto is not None
    return auto


def test_without_a_quorum_only_machines_are_asked(ready: ReadyLab) -> None:
    ready.machines.power_off(["cp2", "cp3"])
    taken = take(ready.lab, "two-off").manifest
    assert taken.running == ("cp1", "w1")
    done = restore(ready.impatient(), "two-off")
    assert done.running == ("cp1", "w1")
    assert not done.verification.full
