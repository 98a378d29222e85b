"""klab status: what a person sees of a look, what a program gets, and the watching."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.app import status
from lab.cli import app
from lab.cli.commands.status import INTERVAL
from lab.cluster.clients.etcd_answers import Alarm, MemberStatus
from lab.cluster.observe import collect
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
from lab.components.kubernetes import DEFAULT
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog
from lab.scenario.library import load_scenario
from lab.store import Home, Record


@pytest.fixture
def plan(home: Path, catalog: Catalog) -> Plan:
    """A lab on disk, with three control planes on fake machines."""
    plan = decide(load_scenario("ha-3m2w", catalog).scenario, catalog, name="ha")
    folder = Home(home).lab("ha")
    folder.path.mkdir(parents=True)
    (folder.path / "plan.json").write_text(to_json(plan))
    folder.write_record(Record("id", "ha", "fake", "box", 0, "ready", 1.7e9))
    return plan


@pytest.fixture
def facts(plan: Plan) -> ClusterFacts:
    def said(number: int) -> MemberStatus:
        return MemberStatus(number, True, 2**63 + 1, "3.6.6", 7, 5, 2, 1 << 20, 1 << 20, 2 << 30, False, ())

    nodes = tuple(
        NodeFacts(
            n.name,
            n.role,
            str(n.address),
            "running",
            "" if n.is_control_plane else None,
            True,
            True,
            kubelet=f"v{DEFAULT}",
        )
        for n in plan.nodes
    )
    members = [
        MemberFacts(n.name, planned=True, joined=True, id=2**63 + i, status=said(2**63 + i))
        for i, n in enumerate(plan.control_planes, start=1)
    ]
    return ClusterFacts(
        lab="ha",
        guest_time=1.7e9,
        nodes=nodes,
        endpoint=Endpoint("https://192.168.56.10:8443", "", "192.168.56.10", "cp2"),
        etcd=EtcdFacts(tuple(members)),
        certificates=(Certificate("w1", "kubelet", 363.7), Certificate("", "klab's admin", 364.0)),
        tokens=(Token("abcdef", 21.5),),
        pods=(PodFacts("kube-system", "coredns-1", "w1", ready=True),),
        clocks=(ClockFacts("cp1", TimeSource.HOST),),
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Decide what each look sees; after the last one the person presses Ctrl-C."""

    def install(*looks: ClusterFacts) -> list[float]:
        left = list(looks)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if not left:
                raise KeyboardInterrupt

        monkeypatch.setattr(collect, "collect_facts", lambda *_, **__: left.pop(0))
        monkeypatch.setattr(status.time, "sleep", pause)
        return pauses

    return install


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert app.run(["status", *words]) == code, capsys.readouterr().err
    return capsys.readouterr().out


def lines(text: str) -> dict[str, str]:
    """The lines below the table, by their first words."""
    return {line[:15].strip(): line[17:] for line in text.splitlines()}


def test_a_healthy_lab(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen(facts)
    out = run(capsys)
    assert out.splitlines()[:4] == [
        f"ha: ha-3m2w, Kubernetes {DEFAULT}, fake, ready",
        "NODE  ROLE           ADDRESS        MACHINE  API  ETCD    KUBELET  KUBERNETES",
        f"cp1   control-plane  192.168.56.11  running  ok   leader  v{DEFAULT}  Ready",
        f"cp2   control-plane  192.168.56.12  running  ok   member  v{DEFAULT}  Ready",
    ]
    assert f"w1    worker         192.168.56.21  running  -    -       v{DEFAULT}  Ready" in out
    said = lines(out)
    assert said["endpoint"] == "https://192.168.56.10:8443 ok, 192.168.56.10 is held by cp2"
    assert said["etcd"] == "3 of 3 members answer, 2 are needed; leader cp1; no alarm"
    assert said["certificates"] == "the soonest expires in 364 days: kubelet on w1"
    assert said["bootstrap token"] == "21.5 hours left"
    assert said["system pods"] == "all ready"
    assert said["time"] == "this machine's clock"


def changed(facts: ClusterFacts, name: str, **changes: Any) -> ClusterFacts:
    return replace(facts, nodes=tuple(replace(n, **changes) if n.name == name else n for n in facts.nodes))


def members(facts: ClusterFacts, name: str, **changes: Any) -> ClusterFacts:
    assert facts.etcd is not None
    found = tuple(replace(m, **changes) if m.name == name else m for m in facts.etcd.members)
    return replace(facts, etcd=replace(facts.etcd, members=found))


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"ready": False, "why": "no network"}, "NotReady: no network"),
        ({"registered": False, "ready": False}, "no member"),
        ({"registered": None, "ready": None}, "-"),
        ({"machine": "stopped"}, "Ready"),
    ],
)
def test_a_node_that_is_not_well_is_exit_code_9(
    facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], cell: str
) -> None:
    seen(changed(facts, "w1", **changes))
    row = next(line for line in run(capsys, "ha", code=9).splitlines() if line.startswith("w1"))
    assert row.endswith(cell)


def test_a_node_that_left_the_cluster_is_told_how_it_joins(
    facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    away = changed(facts, "w1", registered=False, ready=False)
    seen(away, changed(away, "w1", machine="stopped"))
    said = "w1 is no member of the cluster; klab node join ha w1 lets it join again"
    assert said in run(capsys, "ha", code=9).splitlines()
    assert said not in run(capsys, "ha", code=9), "its machine comes first"


def test_a_cordoned_node_is_shown_and_no_failure(
    facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seen(changed(facts, "w1", cordoned=True))
    assert "Ready, cordoned" in run(capsys)


def test_an_endpoint_that_does_not_answer_is_exit_code_9(
    facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts.endpoint is not None
    down = replace(facts, endpoint=replace(facts.endpoint, error="connection refused", holder=""))
    seen(down, down)
    assert "https://192.168.56.10:8443 does not answer: connection refused, who holds" in run(capsys, code=9)
    assert json.loads(run(capsys, "--json", code=9))["api"] == "connection refused"


def test_etcds_members_one_by_one(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert facts.etcd is not None
    here = facts.etcd.members[2].status
    assert here is not None
    facts = members(facts, "cp2", status=None, error="connection refused")
    facts = members(facts, "cp3", status=replace(here, healthy=False, errors=("alarm",)))
    facts = changed(facts, "cp2", api="connection refused")
    seen(facts, members(facts, "cp3", status=here, learner=True), members(facts, "cp3", joined=False))
    column = [line.split()[4:6] for line in run(capsys).splitlines() if line.startswith("cp")]
    assert column == [["ok", "leader"], ["down", "lost"], ["ok", "unhealthy"]]
    assert " learner " in run(capsys)
    assert " no member " in run(capsys)


def test_the_quorum_lost_is_said_clearly(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cp2", "cp3"):
        facts = members(changed(facts, name, machine="stopped"), name, status=None)
    seen(facts, facts)
    words = "etcd has lost its quorum: 1 of 3 members answer, 2 are needed; klab start ha cp2 starts one"
    assert lines(run(capsys, code=9))["etcd"] == words
    etcd = json.loads(run(capsys, "--json", code=9))["etcd"]
    assert (etcd["quorum"], etcd["answering"], etcd["voters"], etcd["needed"]) == (False, 1, 3, 2)
    assert etcd["error"] == words


def test_a_stopped_lab_says_how_it_starts(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen(replace(facts, nodes=tuple(replace(n, machine="stopped", ready=None) for n in facts.nodes)))
    out = run(capsys, code=9)
    assert out.splitlines()[-1] == "every machine is off; klab start ha starts the lab"
    assert "etcd  " not in out


def test_a_lab_whose_machines_are_gone_is_not_said_to_start(
    facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seen(replace(facts, nodes=tuple(replace(n, machine="absent", ready=None) for n in facts.nodes)))
    assert "klab start" not in run(capsys, code=9)


def test_without_a_cluster_there_are_machines(
    facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ClusterFacts("ha", 0.0, tuple(replace(n, registered=None, ready=None) for n in facts.nodes))
    seen(plain, plain)
    out = run(capsys)
    assert out.splitlines()[1].split() == ["NODE", "ROLE", "ADDRESS", "MACHINE", "KUBERNETES"]
    assert len(out.splitlines()) == 7
    found = json.loads(run(capsys, "--json"))
    assert (found["api"], found["endpoint"], found["etcd"], found["ready"]) == ("", None, None, True)


def test_what_was_not_seen_is_said(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen(replace(facts, unseen=("pods: no answer within 5 s",), pods=None))
    out = run(capsys)
    assert out.splitlines()[-1] == "not seen: pods: no answer within 5 s"
    assert lines(out)["system pods"] == "cannot be seen"


def test_json_holds_everything(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert facts.etcd is not None
    seen(replace(facts, etcd=replace(facts.etcd, alarms=(Alarm(2**63 + 2, "NOSPACE"),))))
    found = json.loads(run(capsys, "--json"))
    assert (found["lab"], found["phase"], found["ready"], found["api"]) == ("ha", "ready", True, "ok")
    assert found["nodes"][0] | {"name": "cp1", "role": "control-plane", "address": "192.168.56.11"} == found["nodes"][0]
    assert found["nodes"][0]["machine"] == "running"
    assert found["nodes"][0]["kubernetes"] == "Ready"
    assert found["endpoint"]["holder"] == "cp2"
    assert found["time_source"] == "host"
    assert found["clocks"] == [{"node": "cp1", "source": "host", "follows": "", "error": ""}]
    assert found["soonest_certificate_days"] == 363.7
    assert found["tokens"] == [{"id": "abcdef", "hours": 21.5, "valid": True}]
    assert found["token_hours"] == 21.5
    # 64-bit numbers as etcdctl writes them.
    assert found["etcd"]["alarms"] == [{"member": "8000000000000002", "kind": "NOSPACE"}]
    assert found["etcd"]["members"][0]["status"]["leader"] == "8000000000000001"
    assert found["etcd"]["leader"] == "cp1"
    assert found["pods"][0]["name"] == "coredns-1"


# --- watching ---------------------------------------------------------------------------------


def test_watching_looks_until_ctrl_c(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pauses = seen(facts, changed(facts, "w1", ready=False, why="gone"), facts)
    out = run(capsys, "--watch")
    assert out.count("ha: ha-3m2w") == 3
    assert out.count("NotReady: gone") == 1
    assert pauses == [INTERVAL] * 3


def test_watching_ends_with_the_code_of_the_last_look(
    facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses = seen(facts, changed(facts, "w1", ready=False, why="gone"))
    run(capsys, "ha", "--watch", "--interval", "5", code=9)
    assert pauses == [5.0, 5.0]


def test_watching_as_json_is_a_line_a_look(facts: ClusterFacts, seen: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen(facts, facts)
    found = [json.loads(line) for line in run(capsys, "--watch", "--json").splitlines()]
    assert [each["ready"] for each in found] == [True, True]


def test_on_a_terminal_the_looks_replace_each_other(
    facts: ClusterFacts, seen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    seen(facts, changed(facts, "w1", ready=False, why="gone"))
    assert app.run(["status", "--watch"]) == 9
    shown = screen.getvalue()
    assert "\x1b[1A" in shown  # back up to the first line
    assert "Ctrl-C ends" in shown
    assert "NotReady: gone" in shown


def test_a_lab_that_goes_away_ends_the_watching(
    facts: ClusterFacts, seen: Any, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen(facts)
    monkeypatch.setattr(status.time, "sleep", lambda _s: Home(home).lab("ha").remove())
    assert app.run(["status", "ha", "--watch"]) == 3
    assert "there is no lab called 'ha'" in capsys.readouterr().err


def test_a_lab_that_grows_is_shown_as_it_is(
    facts: ClusterFacts, plan: Plan, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked: list[int] = []

    def grow(_seconds: float) -> None:
        if len(looked) == 2:
            raise KeyboardInterrupt
        smaller = replace(plan, nodes=plan.nodes[:4])
        (Home(home).lab("ha").path / "plan.json").write_text(to_json(smaller))

    monkeypatch.setattr(collect, "collect_facts", lambda _f, now, *_, **__: looked.append(len(now.nodes)) or facts)
    monkeypatch.setattr(status.time, "sleep", grow)
    run(capsys, "--watch")
    assert looked == [5, 4]


def test_an_interval_without_watching_is_a_mistake(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["status", "--interval", "3"]) == 2
    assert "klab status --watch --interval 5" in capsys.readouterr().err
    assert app.run(["status", "--watch", "--interval", "0"]) == 2
    assert app.run(["status", "--watch", "--interval", "nan"]) == 2
