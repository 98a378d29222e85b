"""klab stop, start, reboot, scale, node, token: what a person reads and a program gets, over fake machines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cluster_server import ClusterServer
from support.fake_lab import lab_on_disk

from lab.cli import app
from lab.cluster.acts import drain
from lab.plan.file import from_json, to_json
from lab.store import Home

pytestmark = pytest.mark.usefixtures("quick_watch")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterServer]:
    made = ClusterServer()
    made.redirect(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def ha(home: Path, cluster: ClusterServer) -> None:
    folder, plan = lab_on_disk(Home(home), control_planes=3, workers=1, bootstrap="full", name="ha")
    cluster.serve(folder, plan)


@pytest.fixture
def plain(home: Path) -> None:
    lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none", name="plain")


def result(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.usefixtures("plain")
def test_off_and_on_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stop"]) == 0
    assert re.search(r"plain is off after \d:\d\d; klab start plain starts it", capsys.readouterr().err)
    assert app.run(["start", "plain", "w1"]) == 0
    assert "w1 is up after" in capsys.readouterr().err
    assert app.run(["start"]) == 0
    assert "plain is up after" in capsys.readouterr().err
    assert app.run(["reboot", "w1", "--force"]) == 0
    assert "w1 is up after" in capsys.readouterr().err


@pytest.mark.usefixtures("plain")
def test_programs_get_events_and_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stop", "plain", "w1", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(e["event"]["node"], e["event"]["phase"], e["event"]["state"]) for e in lines[:-1]] == [
        ("w1", "shutdown", "begin"),
        ("w1", "shutdown", "done"),
    ]
    assert {k: v for k, v in lines[-1].items() if k != "seconds"} == {
        "lab": "plain",
        "nodes": ["w1"],
        "running": ["cp1"],
        "lost_quorum": False,
    }


@pytest.mark.usefixtures("ha")
def test_a_lost_quorum_is_said_with_the_way_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stop", "cp2", "cp3", "--force"]) == 0
    said = capsys.readouterr().err
    assert "1 of 3 control planes run, 2 are needed: etcd has lost its quorum" in said
    assert "klab start ha cp2" in said


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("words", [["stop", "w9"], ["start", "plain", "w9"], ["node", "rm", "w9"]])
def test_a_node_that_is_not_there_is_said_with_those_that_are(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(words) == 3
    assert "its nodes: cp1, w1" in capsys.readouterr().err


@pytest.mark.usefixtures("ha")
def test_a_duration_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stop", "--timeout", "soon"]) == 2
    assert "'soon' is not a duration" in capsys.readouterr().err


@pytest.mark.usefixtures("ha")
def test_scale_wants_a_number_and_refuses_what_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["scale"]) == 2
    assert "klab scale --workers N" in capsys.readouterr().err
    assert app.run(["scale", "--control-planes", "4"]) == 2
    assert "--allow-even" in capsys.readouterr().err
    assert app.run(["scale", "--workers", "1"]) == 0
    assert "ha has 3 control planes and 1 worker already" in capsys.readouterr().err
    assert app.run(["node", "rm", "w1", "cp2"]) == 2
    assert "one node at a time" in capsys.readouterr().err


@pytest.mark.usefixtures("ha")
def test_a_worker_leaves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain.process, "run", lambda *_args, **_options: None)  # in kubectl's place
    assert app.run(["node", "rm", "ha", "w1", "--json"]) == 0
    found = result(capsys)
    assert found["left"] == ["w1"]
    assert [n["name"] for n in found["nodes"]] == ["cp1", "cp2", "cp3"]


@pytest.mark.usefixtures("ha")
def test_a_worker_is_reset_and_joins_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain.process, "run", lambda *_args, **_options: None)  # in kubectl's place
    assert app.run(["node", "reset", "ha", "w1"]) == 0
    said = capsys.readouterr().err
    assert "w1 is no member of the cluster; klab node join ha w1 lets it join again" in said
    assert "klab token ha prints the command" in said
    assert app.run(["node", "reset", "ha", "w1", "--json"]) == 0
    assert result(capsys)["left"] == ["w1"]


@pytest.mark.usefixtures("ha")
def test_a_member_that_is_to_join_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["node", "join", "ha", "w1"]) == 0
    assert "w1 is a member of ha already" in capsys.readouterr().err
    assert app.run(["node", "join", "ha", "w1", "--json"]) == 0
    assert result(capsys)["joined"] == []
    assert app.run(["node", "reset", "ha", "w9"]) == 3
    assert app.run(["node", "join"]) == 2


@pytest.mark.usefixtures("ha")
def test_a_token_is_a_command_that_joins(capsys: pytest.CaptureFixture[str], cluster: ClusterServer) -> None:
    assert app.run(["token", "--hours", "2"]) == 0
    words = capsys.readouterr().out.split()
    assert words[:3] == ["kubeadm", "join", "192.168.56.10:8443"]
    (secret,) = cluster.applied
    assert words[4] == f"{secret['stringData']['token-id']}.{secret['stringData']['token-secret']}"
    assert secret["stringData"]["expiration"] == "2030-01-01T02:00:00Z"
    assert words[6].startswith("sha256:")
    assert app.run(["token", "--hours", "inf"]) == 2
    assert app.run(["token", "--hours", "nan"]) == 2
    assert "87600" in capsys.readouterr().err
    assert app.run(["token", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["lab"], told["endpoint"], told["ca_hash"]) == ("ha", "192.168.56.10:8443", words[6])


@pytest.mark.usefixtures("ha")
def test_a_token_names_the_runtime_where_kubeadm_would_find_two(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    folder = Home(home).lab("ha")
    plan = from_json(folder.plan_text())
    folder.plan_file.write_text(to_json(replace(plan, kubernetes=replace(plan.kubernetes, runtime="docker"))))
    assert app.run(["token"]) == 0
    assert capsys.readouterr().out.split()[-2:] == ["--cri-socket", "unix:///run/cri-dockerd.sock"]


@pytest.mark.usefixtures("plain")
def test_without_a_cluster_of_klabs_there_is_no_token_and_nothing_to_join(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["token"]) == 2
    assert "kubeadm token create" in capsys.readouterr().err
    assert app.run(["scale", "--workers", "2"]) == 4
    assert "bootstrap is none" in capsys.readouterr().err
