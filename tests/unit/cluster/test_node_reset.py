"""A node that leaves its cluster, lives on, and joins again, over the fake. Real nodes: tests/e2e, tests/life."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.changing_lab import FakeEtcd, FakeMember, Lab, lab_of
from support.cluster_server import ClusterServer
from support.fake_lab import lab_on_disk
from support.kills import killed_in

from lab.cluster.acts import node_reset
from lab.cluster.acts.node_reset import KUBELET_RUNS, join_node, reset_node
from lab.cluster.acts.power import start, stop
from lab.cluster.acts.scale import add_node, scale
from lab.cluster.wait.standing import ASK
from lab.errors import ClusterError, Conflict, LabError, MachineError, NotFound, UsageError
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.process import Completed
from lab.store import Home

JOINED = "klab: join begin attempt 1\nklab: join done\nklab: clean begin\nklab: clean done\n"
FAILED = "klab: join failed kubeadm join failed 3 times\nklab| error execution phase preflight\n"

pytestmark = pytest.mark.usefixtures("quick_watch")


class Nodes:
    """What the nodes of a lab say of themselves, by name, in files: a killed klab's successor finds them as they are.

    `scripts` are those that klab has sent, with their nodes. `says` is what a node that joins prints.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        folder.mkdir()
        for node in lab.plan.nodes:
            self.stand(node.name, "member")
        self.says, self.cleans = JOINED, 0

    def stand(self, node: str, where: str) -> None:
        (self.folder / node).write_text(where)

    def stands(self, node: str) -> str:
        return (self.folder / node).read_text()

    @property
    def scripts(self) -> list[tuple[str, str]]:
        return [(file.name.split(".")[1], file.read_text()) for file in sorted(self.folder.glob("*.script"))]

    def ssh(
        self,
        machines: FakeMachines,
        node: str,
        command: Sequence[str],
        timeout: float,
        check: bool = True,
        stdin: str | None = None,
    ) -> Completed:
        if machines.states()[node] != NodeState.RUNNING:
            raise MachineError(f"{node} does not answer ssh")
        if tuple(command) == ASK:
            return Completed((), 0, f"{self.stands(node)}\n", "")
        if command == KUBELET_RUNS or command[:2] == ["test", "-e"]:
            return Completed((), 0 if self.stands(node) == "member" else 3, "", "")
        if stdin:
            return self._script(machines, node, stdin)
        return FakeMachines.ssh(machines, node, command, timeout, check, stdin)

    def _script(self, machines: FakeMachines, node: str, script: str) -> Completed:
        (self.folder / f"{len(self.scripts):03d}.{node}.script").write_text(script)
        if "systemctl restart klab-node" in script:
            with machines.consoles()[node].open("a") as out:
                out.write(self.says)
            self.stand(node, "joining")
            if self.says == JOINED:
                self.stand(node, "member")
                self.lab.cluster.nodes.append(node)
        elif "kubeadm reset --force" in script:
            if self.cleans:
                return Completed((), self.cleans, "", "containers of pods still run\n")
            self.stand(node, "outside")
        return Completed((), 0, "", "")


@pytest.fixture
def small(tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return lab_of(1, 2, tmp_path, cluster, monkeypatch)


@pytest.fixture
def ha(tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return lab_of(3, 1, tmp_path, cluster, monkeypatch)


def test_a_worker_leaves_and_its_machine_stays(small: Lab, tmp_path: Path) -> None:
    nodes, events = Nodes(small, tmp_path / "nodes"), []
    change = small.change(listener=lambda event: events.append((event.node, event.phase, event.state)), ssh=nodes.ssh)
    changed = reset_node(change, "w1")
    assert (changed.left, changed.joined) == (("w1",), ())
    assert small.names == ["cp1", "w1", "w2"]
    assert small.cluster.nodes == ["cp1", "w2"]
    assert small.machines.states()["w1"] == NodeState.RUNNING
    assert [node for node, _ in nodes.scripts] == ["w1"]
    assert events == [("w1", phase, state) for phase in ("drain", "reset") for state in ("begin", "done")]


def test_it_joins_again_with_a_fresh_token_that_is_gone_afterwards(small: Lab, tmp_path: Path) -> None:
    nodes = Nodes(small, tmp_path / "nodes")
    reset_node(small.change(ssh=nodes.ssh), "w1")
    assert join_node(small.change(ssh=nodes.ssh), "w1").joined == ("w1",)
    assert small.cluster.nodes == ["cp1", "w2", "w1"]
    (secret,) = [m for m in small.cluster.applied if m["kind"] == "Secret"]
    token = ".".join(secret["stringData"][key] for key in ("token-id", "token-secret"))
    node, script = nodes.scripts[-1]
    assert node == "w1"
    assert token in script
    assert "ca.key" not in script, "a worker gets no CA"
    assert small.cluster.deleted[-1] == f"/api/v1/namespaces/kube-system/secrets/{secret['metadata']['name']}"


def test_a_member_has_nothing_to_join(small: Lab, tmp_path: Path) -> None:
    nodes = Nodes(small, tmp_path / "nodes")
    assert join_node(small.change(ssh=nodes.ssh), "w1").joined == ()
    assert nodes.scripts == []


def test_one_that_was_reset_by_hand_joins_as_well(small: Lab, tmp_path: Path) -> None:
    nodes = Nodes(small, tmp_path / "nodes")
    nodes.stand("w1", "outside")  # its object stays: kubeadm reset does not delete it
    assert join_node(small.change(ssh=nodes.ssh), "w1").joined == ("w1",)
    assert "/api/v1/nodes/w1" in small.cluster.deleted
    assert sorted(small.cluster.nodes) == ["cp1", "w1", "w2"]


def test_a_reset_of_one_that_has_left_cleans_it_up_and_does_not_drain_it(small: Lab, tmp_path: Path) -> None:
    nodes, phases = Nodes(small, tmp_path / "nodes"), []
    nodes.stand("w1", "outside")
    change = small.change(listener=lambda event: phases.append(event.phase), ssh=nodes.ssh)
    assert reset_node(change, "w1").left == ("w1",)
    assert set(phases) == {"reset"}
    assert small.cluster.nodes == ["cp1", "w2"]
    assert reset_node(small.change(ssh=nodes.ssh), "w1").left == ("w1",), "and again"


def test_a_control_plane_leaves_etcd_and_comes_back_with_the_cas(ha: Lab, tmp_path: Path) -> None:
    nodes = Nodes(ha, tmp_path / "nodes")
    reset_node(ha.change(ssh=nodes.ssh), "cp3")
    assert ha.etcd.removed == ["cp3"]
    assert join_node(ha.change(ssh=nodes.ssh), "cp3").joined == ("cp3",)
    assert "/etc/klab/pki/etcd/ca.key" in nodes.scripts[-1][1]


def test_the_only_control_plane_and_a_quorum_are_kept(
    small: Lab, tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="cp1 is the only control plane") as caught:
        reset_node(small.change(), "cp1")
    assert "klab create bare-1m2w" in caught.value.hint
    ha = lab_of(3, 1, tmp_path / "ha", cluster, monkeypatch)
    nodes = Nodes(ha, tmp_path / "nodes")
    ha.etcd.found = [FakeMember("cp1"), FakeMember("cp2"), FakeMember("cp3", healthy=False)]
    with pytest.raises(ClusterError, match="without cp2 etcd would lose its quorum"):
        reset_node(ha.change(ssh=nodes.ssh), "cp2")
    assert nodes.scripts == []
    assert ha.cluster.deleted == []


@pytest.mark.parametrize("act", [reset_node, join_node])
def test_a_machine_that_is_off_is_refused_with_what_starts_it(act: Callable[..., object], small: Lab) -> None:
    small.machines.power_off(["w1"])
    with pytest.raises(Conflict, match="the machine of w1 is stopped") as caught:
        act(small.change(), "w1")
    assert "klab start demo w1" in caught.value.hint
    assert small.cluster.deleted == []


@pytest.mark.parametrize("act", [reset_node, join_node])
def test_a_lab_whose_cluster_is_the_students_is_refused(act: Callable[..., object], small: Lab, tmp_path: Path) -> None:
    folder, plan = lab_on_disk(Home(tmp_path / "other"), control_planes=1, workers=1, bootstrap="prepared")
    other = Lab(Home(tmp_path / "other"), folder, plan, small.cluster, FakeEtcd([]))
    with pytest.raises(Conflict, match="no cluster that klab created"):
        act(other.change(), "w1")
    with pytest.raises(NotFound, match="no node called 'w9'"):
        act(small.change(), "w9")


def test_a_node_in_its_first_boot_is_recreated_instead(small: Lab, tmp_path: Path) -> None:
    nodes = Nodes(small, tmp_path / "nodes")
    nodes.stand("w1", "new")
    with pytest.raises(Conflict, match="w1 has not finished its first boot") as caught:
        join_node(small.change(ssh=nodes.ssh), "w1")
    assert "klab node replace demo w1" in caught.value.hint


def test_what_cannot_be_cleaned_up_is_told_with_its_last_lines(small: Lab, tmp_path: Path) -> None:
    nodes = Nodes(small, tmp_path / "nodes")
    nodes.cleans = 1
    with pytest.raises(ClusterError, match="w1 cannot be cleaned up") as caught:
        reset_node(small.change(ssh=nodes.ssh), "w1")
    assert caught.value.details == ("exit code 1", "containers of pods still run")
    assert "run the same command again" in caught.value.hint
    assert "w1" in small.cluster.nodes, "a node that still runs pods is not forgotten"


def test_a_node_that_does_not_answer_is_told(small: Lab) -> None:
    def ssh(_self: FakeMachines, node: str, *_: Any, **_more: Any) -> Any:
        raise MachineError(f"{node} does not answer ssh")

    with pytest.raises(MachineError, match="w1 does not answer ssh"):
        reset_node(small.change(ssh=ssh), "w1")


def test_a_join_that_fails_shows_kubeadms_words_and_the_same_command_tries_again(small: Lab, tmp_path: Path) -> None:
    nodes = Nodes(small, tmp_path / "nodes")
    reset_node(small.change(ssh=nodes.ssh), "w1")
    nodes.says = FAILED
    with pytest.raises(ClusterError, match="w1 failed in phase join: kubeadm join failed 3 times") as caught:
        join_node(small.change(ssh=nodes.ssh), "w1")
    assert caught.value.details == ("error execution phase preflight",)
    assert "run the same command again" in caught.value.hint
    nodes.says = JOINED
    assert join_node(small.change(ssh=nodes.ssh), "w1").joined == ("w1",)


def owner(step: str) -> Any:
    """Where a step of the act is looked up."""
    return node_reset if hasattr(node_reset, step) else node_reset._Membership


@pytest.mark.parametrize("step", ["drain", "_take_back_member", "_clean", "_forget"])
def test_a_killed_reset_continues_at_each_step(step: str, ha: Lab, tmp_path: Path) -> None:
    nodes = Nodes(ha, tmp_path / "nodes")
    killed_in(owner(step), step, lambda: reset_node(ha.change(ssh=nodes.ssh), "cp3"))
    assert reset_node(ha.change(ssh=nodes.ssh), "cp3").left == ("cp3",)
    assert "cp3" not in ha.cluster.nodes
    assert nodes.stands("cp3") == "outside"


@pytest.mark.parametrize("step", ["_take_back_member", "_clean", "_update_others", "_run"])
def test_a_killed_join_continues_at_each_step(step: str, ha: Lab, tmp_path: Path) -> None:
    nodes = Nodes(ha, tmp_path / "nodes")
    reset_node(ha.change(ssh=nodes.ssh), "cp3")
    killed_in(owner(step), step, lambda: join_node(ha.change(ssh=nodes.ssh), "cp3"))
    assert join_node(ha.change(ssh=nodes.ssh), "cp3").joined == ("cp3",)
    assert "cp3" in ha.cluster.nodes


class TestTheRestOfKlab:
    """What else is done to a lab, one of whose nodes has left the cluster."""

    @pytest.fixture
    def nodes(self, small: Lab, tmp_path: Path) -> Nodes:
        nodes = Nodes(small, tmp_path / "nodes")
        reset_node(small.change(ssh=nodes.ssh), "w1")
        return nodes

    def test_a_start_passes_over_it_and_says_so(self, small: Lab, nodes: Nodes) -> None:
        notes: list[str] = []
        change = small.change(
            listener=lambda event: notes.append(event.text) if event.state == "note" else None, ssh=nodes.ssh
        )
        stop(change.lab)
        start(change.lab)
        said = "w1 is no member of the cluster; klab node join demo w1 lets it join again"
        assert notes == [said]

    def test_a_start_waits_for_one_that_the_cluster_has_only_forgotten(self, small: Lab, nodes: Nodes) -> None:
        nodes.stand("w1", "member")
        change = small.change(ssh=nodes.ssh)
        with pytest.raises(LabError, match="not Ready"):
            start(_impatient(change))

    def test_a_growing_lab_leaves_it_alone(self, small: Lab, nodes: Nodes) -> None:
        before = small.machines.consoles()["w1"].read_text()
        assert scale(small.change(ssh=nodes.ssh), workers=3).joined == ("w3",)
        assert small.machines.consoles()["w1"].read_text() == before
        small.machines.power_off(["w1"])
        assert scale(small.change(ssh=nodes.ssh), workers=4).joined == ("w4",)
        assert small.machines.states()["w1"] == NodeState.STOPPED

    def test_it_is_not_added_but_joins(self, small: Lab, nodes: Nodes) -> None:
        with pytest.raises(Conflict, match="has left the cluster") as caught:
            add_node(small.change(ssh=nodes.ssh), "worker", "w1")
        assert "klab node join demo w1" in caught.value.hint


def _impatient(change: Any) -> Any:
    from dataclasses import replace

    return replace(change.lab, timeout=0.5)


def test_shellcheck_has_nothing_to_say(small: Lab, tmp_path: Path) -> None:
    nodes = Nodes(small, tmp_path / "nodes")
    reset_node(small.change(ssh=nodes.ssh), "w1")
    join_node(small.change(ssh=nodes.ssh), "w1")
    for _, script in nodes.scripts:
        judge = ["shellcheck", "--shell=bash", "-"] if shutil.which("shellcheck") else ["bash", "-n"]
        done = subprocess.run(judge, input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
