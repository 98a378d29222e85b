"""klab upgrade: what a person reads and a program gets, over fake machines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.fake_lab import lab_on_disk, register
from support.upgradable import AFTER, BEFORE, Nodes, UpgradableMachines, UpgradableServer, kubectl

from lab.app import upgrade
from lab.cli import app
from lab.cluster.acts import drain
from lab.files import write_atomic
from lab.machines.captures import PartKind
from lab.plan.file import from_json, to_json
from lab.plan.versions import with_version
from lab.scenario.catalog import load_catalog
from lab.snapshots.store import SnapshotStore
from lab.store import Home, LabFolder

pytestmark = pytest.mark.usefixtures("quick_watch")


@pytest.fixture
def nodes(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """The nodes of the lab "demo", which has BEFORE; what a box would bring for AFTER is there."""
    folder, plan = lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="full")
    plan = with_version(plan, load_catalog().kubernetes[BEFORE])
    write_atomic(folder.plan_file, to_json(plan))
    made = Nodes(tmp_path / "nodes", ["cp1", "w1"])
    server = UpgradableServer(made)
    server.serve(folder, plan)
    server.redirect(monkeypatch)
    register(monkeypatch, make=type("Machines", (UpgradableMachines,), {"states_of": made}))
    machines = UpgradableMachines(Home(home), folder, plan, folder.record(), None)
    for node in plan.nodes:
        machines.write(node.name, PartKind.DISK, "disk")
    file = tmp_path / "file"
    file.write_text("the file")
    monkeypatch.setattr(upgrade, "_file", lambda *_: file)
    monkeypatch.setattr(drain.process, "run", lambda argv, **_: kubectl(made, *argv[1:]))
    yield made
    server.close()


@pytest.fixture
def folder(home: Path) -> LabFolder:
    return Home(home).lab("demo")


def result(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.usefixtures("nodes")
def test_a_minor_version_is_its_newest_patch_and_a_snapshot_comes_first(
    folder: LabFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["upgrade", "--to", "1.35"]) == 0
    said = capsys.readouterr().err
    assert re.search(r"demo has Kubernetes 1\.35\.4 and is Ready after \d+:\d\d", said)
    assert "klab restore demo before-1.35.4 takes it back" in said
    assert from_json(folder.plan_text()).kubernetes.version == AFTER
    (snapshot,) = SnapshotStore(folder).manifests()
    assert (snapshot.name, snapshot.note) == ("before-1.35.4", "before the upgrade to 1.35.4")
    assert snapshot.kubernetes["version"] == BEFORE
    assert app.run(["upgrade", "demo", "--to", "1.35.4"]) == 0
    assert "demo has Kubernetes 1.35.4 already, and is Ready" in capsys.readouterr().err
    assert len(SnapshotStore(folder).manifests()) == 1


@pytest.mark.usefixtures("nodes")
def test_programs_get_events_and_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["upgrade", "--to", AFTER, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [(e["event"]["node"], e["event"]["phase"], e["event"]["state"]) for e in lines[:-1]]
    for node in ("cp1", "w1"):
        steps = ("packages", "kubeadm upgrade", "drain", "kubelet", "upgrade")
        found = [told.index((node, step, "done")) for step in steps]
        assert found == sorted(found)
    assert lines[-1] | {"seconds": 0} == {
        "lab": "demo",
        "before": BEFORE,
        "after": AFTER,
        "nodes": ["cp1", "w1"],
        "snapshot": "before-1.35.4",
        "seconds": 0,
    }


@pytest.mark.usefixtures("nodes")
def test_without_a_snapshot(folder: LabFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["upgrade", "--to", AFTER, "--no-snapshot"]) == 0
    assert "restore" not in capsys.readouterr().err
    assert SnapshotStore(folder).manifests() == []


def test_prepared_for_an_upgrade_by_hand(nodes: Nodes, folder: LabFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["upgrade", "--to", AFTER, "--prepare"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("cp1: sudo apt-get install -y kubeadm=1.35.4-1.1 && sudo kubeadm upgrade apply v1.35.4")
    assert "klab upgrade demo --to 1.35.4 looks whether all is done" in said.err
    assert nodes.of("w1")["packages"]
    assert nodes.of("w1")["kubelet"] == BEFORE
    assert from_json(folder.plan_text()).kubernetes.version == BEFORE
    assert app.run(["upgrade", "--to", AFTER, "--prepare", "--json"]) == 0
    assert result(capsys)["commands"][-1] == "kubectl uncordon w1"


def test_what_fails_is_named_and_the_same_command_continues(
    nodes: Nodes, folder: LabFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UpgradableMachines, "failing", "restart kubelet")
    assert app.run(["upgrade", "--to", AFTER]) == 9
    said = capsys.readouterr().err
    assert "w1 cannot be upgraded to Kubernetes 1.35.4" in said
    assert "klab restore demo before-1.35.4 brings the lab back" in said
    # Until then no node comes or goes, and no other upgrade begins.
    assert app.run(["node", "add"]) == 4
    assert "klab upgrade --to 1.35.4 finishes that first" in capsys.readouterr().err
    assert app.run(["upgrade", "--to", BEFORE]) == 4
    assert (
        "klab upgrade demo --to 1.35.4 finishes that first; klab restore demo before-1.35.4" in capsys.readouterr().err
    )
    monkeypatch.setattr(UpgradableMachines, "failing", "")
    assert app.run(["upgrade", "--to", AFTER]) == 0
    assert nodes.done.count("cp1 kubelet") == 1
    assert len(SnapshotStore(folder).manifests()) == 1


@pytest.mark.usefixtures("nodes")
def test_a_version_that_cannot_be_is_refused_before_anything_happens(
    folder: LabFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["upgrade", "--to", "1.99"]) == 2
    assert "the box debian-13 has no Kubernetes '1.99'" in capsys.readouterr().err
    assert app.run(["upgrade", "--to", "1.37"]) == 2
    assert "one after the other: 1.35.4, 1.36.3, 1.37.2" in capsys.readouterr().err
    assert app.run(["upgrade"]) == 2
    assert "'--to'" in capsys.readouterr().err
    assert SnapshotStore(folder).manifests() == []


@pytest.mark.usefixtures("nodes")
def test_a_lab_that_is_off_is_refused_before_a_snapshot_is_taken(
    folder: LabFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["stop", "demo", "w1", "--force"]) == 0
    assert app.run(["upgrade", "--to", AFTER]) == 4
    said = capsys.readouterr().err
    assert "not every machine of lab 'demo' runs" in said
    assert "klab start demo starts them" in said
    assert SnapshotStore(folder).manifests() == []


def test_without_a_box_of_the_version_the_command_that_builds_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plan = lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="full")
    write_atomic(folder.plan_file, to_json(with_version(plan, load_catalog().kubernetes[BEFORE])))
    register(monkeypatch)
    assert app.run(["upgrade", "--to", AFTER]) == 7
    assert "klab box build debian-13 --kubernetes 1.35.4" in capsys.readouterr().err
    assert SnapshotStore(folder).manifests() == []
