"""Grow and shrink over the shipped fake. Real clusters: tests/life."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.changing_lab import FakeMember, Lab, lab_of
from support.cluster_server import ClusterServer

from lab.cluster.acts import scale
from lab.cluster.acts.scale import Change, add_node, remove_node, replace_node
from lab.errors import ClusterError, Conflict, HostError, LabError, NotFound, UsageError
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.plan.model import Node, Plan

pytestmark = pytest.mark.usefixtures("quick_watch")


@pytest.fixture
def small(tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return lab_of(1, 1, tmp_path, cluster, monkeypatch)


@pytest.fixture
def ha(tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return lab_of(3, 2, tmp_path, cluster, monkeypatch)


def test_a_worker_joins_with_a_fresh_token_that_is_gone_afterwards(small: Lab) -> None:
    changed = scale.scale(small.change(), workers=2)
    assert changed.joined == ("w2",)
    assert small.names == ["cp1", "w1", "w2"]
    assert small.machines.states()["w2"] == NodeState.RUNNING
    (secret,) = [m for m in small.cluster.applied if m["kind"] == "Secret"]
    assert secret["stringData"]["expiration"] == "2030-01-02T00:00:00Z", "by the cluster's clock"
    assert small.cluster.deleted == [f"/api/v1/namespaces/kube-system/secrets/{secret['metadata']['name']}"]
    assert not list(small.folder.path.rglob("*.iso"))


def test_a_worker_leaves_the_cluster_and_the_plan(small: Lab) -> None:
    scale.scale(small.change(), workers=2)
    changed = scale.scale(small.change(), workers=1)
    assert changed.left == ("w2",)
    assert small.names == ["cp1", "w1"]
    assert "/api/v1/nodes/w2" in small.cluster.deleted
    assert not [line for line in small.machines.leftovers() if "w2" in line]


def test_scaling_to_what_is_there_does_nothing(small: Lab) -> None:
    changed = scale.scale(small.change(), workers=1, control_planes=1)
    assert (changed.joined, changed.left) == ((), ())
    assert small.cluster.applied == []


def test_a_join_that_was_cut_off_is_begun_anew_by_the_same_command(small: Lab) -> None:
    failing = small.change(says="klab: join failed kubeadm join failed 3 times\n", joins=False)
    with pytest.raises(ClusterError, match="w2 failed in phase join"):
        scale.scale(failing, workers=2)
    assert small.names == ["cp1", "w1", "w2"], "the plan knows of it, so that nothing is lost"
    assert scale.scale(small.change(), workers=2).joined == ("w2",)
    assert small.cluster.nodes == ["cp1", "w1", "w2"]


def test_so_does_node_add_by_name(small: Lab) -> None:
    with pytest.raises(ClusterError):
        add_node(small.change(says="klab: join failed x\n", joins=False), "worker", "gpu")
    assert add_node(small.change(), "worker", "gpu").joined == ("gpu",)
    with pytest.raises(Conflict, match="'gpu' already"):
        add_node(small.change(), "worker", "gpu")


def test_control_planes_join_one_by_one_and_the_others_learn_of_them(ha: Lab) -> None:
    told: list[tuple[str, str]] = []

    def ssh(self: FakeMachines, node: str, command: Sequence[str], *args: Any, **more: Any) -> Any:
        if more.get("stdin"):
            told.append((node, more["stdin"]))
        return FakeMachines.ssh(self, node, command, *args, **more)

    changed = scale.scale(ha.change(ssh=ssh), control_planes=5)
    assert changed.joined == ("cp4", "cp5")
    assert [node for node, _ in told] == ["cp1", "cp2", "cp3", "w1", "w2", "cp1", "cp2", "cp3", "cp4", "w1", "w2"]
    assert all("server cp5 192.168.56.15:6443" in script for node, script in told if node == "cp1")
    assert not any("haproxy.cfg" in script for node, script in told if node == "w1")


def test_a_control_plane_leaves_etcd_too(ha: Lab) -> None:
    changed = replace_node(ha.change(), "cp2")
    assert (changed.left, changed.joined) == (("cp2",), ("cp2",))
    assert ha.etcd.removed == ["cp2"]
    assert ha.names == ["cp1", "cp2", "cp3", "w1", "w2"]


def test_what_would_lose_the_quorum_is_refused_before_anything_happens(ha: Lab) -> None:
    ha.etcd.found = [FakeMember("cp1"), FakeMember("cp2"), FakeMember("cp3", healthy=False)]
    with pytest.raises(ClusterError, match="without cp2 etcd would lose its quorum"):
        replace_node(ha.change(), "cp2")
    assert ha.machines.states()["cp2"] == NodeState.RUNNING
    assert ha.etcd.removed == []
    assert replace_node(ha.change(), "cp3").joined == ("cp3",)


def test_the_only_control_plane_cannot_be_replaced(small: Lab) -> None:
    with pytest.raises(UsageError, match="needs a control plane"):
        replace_node(small.change(), "cp1")
    with pytest.raises(UsageError, match="needs a control plane"):
        remove_node(small.change(), "cp1")


def test_a_lab_without_a_virtual_ip_gets_no_second_control_plane(small: Lab) -> None:
    with pytest.raises(UsageError, match="no virtual IP"):
        scale.scale(small.change(), control_planes=3)
    assert small.cluster.applied == []


def test_numbers_that_make_no_sense_are_refused_before_anything_happens(ha: Lab) -> None:
    with pytest.raises(UsageError, match="2 control planes need 2"):
        scale.scale(ha.change(), control_planes=2)
    with pytest.raises(UsageError, match="4 control planes need 3"):
        add_node(ha.change(), "control-plane")
    with pytest.raises(NotFound, match="no node called 'w9'"):
        remove_node(ha.change(), "w9")
    assert ha.cluster.applied == []


def test_a_host_without_room_is_said_before_anything_happens(small: Lab) -> None:
    def full(_plan: Plan, _nodes: Sequence[Node]) -> None:
        raise HostError("no room")

    with pytest.raises(HostError):
        scale.scale(replace(small.change(), fits=full), workers=2)
    assert small.names == ["cp1", "w1"]


def test_a_cluster_that_does_not_answer_is_left_alone(small: Lab) -> None:
    small.cluster.unreachable = True
    acts: list[Callable[[Change], object]] = [
        lambda change: scale.scale(change, workers=2),
        lambda change: remove_node(change, "w1"),
    ]
    for act in acts:
        with pytest.raises(ClusterError, match="must answer before"):
            act(small.change())
    assert small.names == ["cp1", "w1"]


def test_a_lab_that_is_not_ready_is_refused(small: Lab) -> None:
    small.folder.update_record(phase="creating")
    with pytest.raises(Conflict, match="half made"):
        scale.scale(small.change(), workers=2)


def test_a_node_that_is_off_leaves_without_being_drained(small: Lab) -> None:
    small.machines.power_off(["w1"])
    events: list[str] = []
    change = small.change(listener=lambda event: events.append(event.phase))
    assert remove_node(change, "w1").left == ("w1",)
    assert "drain" not in events


def test_a_drain_that_fails_is_noted_and_does_not_keep_the_node(small: Lab) -> None:
    notes: list[str] = []
    change = small.change("false", lambda event: notes.append(event.text) if event.state == "note" else None)
    assert remove_node(change, "w1").left == ("w1",)
    assert notes


def test_a_drain_asks_no_proxy(small: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$NO_PROXY" > {tmp_path}/seen\n')
    kubectl.chmod(0o755)
    remove_node(small.change(str(kubectl)), "w1")
    assert "192.168.56.0/24" in (tmp_path / "seen").read_text()


def test_errors_of_a_node_that_cannot_be_told_name_it(small: Lab) -> None:
    def ssh(_self: FakeMachines, *_: Any, **more: Any) -> Any:
        if more.get("stdin"):
            raise LabError("no route")

    with pytest.raises(ClusterError, match="cp1 cannot be updated"):
        scale.scale(small.change(ssh=ssh), workers=2)
