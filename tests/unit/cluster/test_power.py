"""Stop, start and reboot over the shipped fake. Real machines: tests/contract, tests/life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cluster_server import ClusterServer, refusing
from support.fake_lab import lab_on_disk, opener

from lab.cluster.acts.power import reboot, start, stop
from lab.cluster.clients.reach import Reach
from lab.cluster.lab import Lab as ClusterLab
from lab.errors import Conflict, MachineError, NotReadyInTime
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.plan.model import Plan
from lab.process import Completed
from lab.store import Home, LabFolder

pytestmark = pytest.mark.usefixtures("quick_watch")


class Lab:
    def __init__(self, home: Home, folder: LabFolder, plan: Plan, reach: Reach = refusing) -> None:
        self.lab = ClusterLab(home, folder, plan, opener(), reach=reach)
        self.machines = FakeMachines(home, folder, plan, folder.record(), None)

    def names(self, state: NodeState) -> set[str]:
        return {name for name, now in self.machines.states().items() if now == state}

    def of(self, **attributes: Any) -> ClusterLab:
        return replace(self.lab, open_machines=opener(**attributes))


@pytest.fixture
def plain(tmp_path: Path) -> Lab:
    home = Home(tmp_path)
    return Lab(home, *lab_on_disk(home, control_planes=1, workers=1, bootstrap="none"))


@pytest.fixture
def ha(tmp_path: Path, cluster: ClusterServer) -> Lab:
    home = Home(tmp_path)
    folder, plan = lab_on_disk(home, control_planes=3, workers=1, bootstrap="full")
    cluster.serve(folder, plan)
    return Lab(home, folder, plan, cluster.reach)


def test_a_lab_stops_and_starts(plain: Lab) -> None:
    done = stop(plain.lab)
    assert plain.names(NodeState.STOPPED) == {"cp1", "w1"}
    assert (done.nodes, done.running) == (("cp1", "w1"), ())
    done = start(plain.lab)
    assert plain.names(NodeState.RUNNING) == {"cp1", "w1"}
    assert done.running == ("cp1", "w1")


def test_one_node_stops_and_starts(plain: Lab) -> None:
    assert stop(plain.lab, ["w1"]).running == ("cp1",)
    assert start(plain.lab, ["w1"]).running == ("cp1", "w1")


def test_stopping_twice_and_starting_twice_changes_nothing(plain: Lab) -> None:
    stop(plain.lab)
    assert stop(plain.lab).running == ()
    start(plain.lab)
    boots = [plain.machines.ssh(n, ["cat", "/proc/sys/kernel/random/boot_id"], 5).stdout for n in ("cp1", "w1")]
    start(plain.lab)
    assert boots == [plain.machines.ssh(n, ["cat", "/proc/sys/kernel/random/boot_id"], 5).stdout for n in ("cp1", "w1")]


def test_a_reboot_is_a_new_boot(plain: Lab) -> None:
    command = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = plain.machines.ssh("w1", command, 5).stdout
    reboot(plain.lab, ["w1"])
    assert plain.machines.ssh("w1", command, 5).stdout != before
    assert plain.names(NodeState.RUNNING) == {"cp1", "w1"}


def test_a_guest_that_does_not_shut_down_is_named_with_the_way_out(plain: Lab) -> None:
    stubborn = plain.of(stubborn=frozenset({"w1"}))
    with pytest.raises(MachineError, match="w1 did not shut down") as caught:
        stop(stubborn)
    assert "klab stop w1 --force" in caught.value.hint
    assert plain.names(NodeState.STOPPED) == {"cp1"}
    stop(stubborn, force=True)
    assert plain.names(NodeState.STOPPED) == {"cp1", "w1"}


@pytest.mark.parametrize(
    ("phase", "said", "way"),
    [
        ("creating", "half made", "klab create FILE continues it"),
        ("destroying", "half destroyed", "klab destroy -y demo finishes"),
    ],
)
def test_a_lab_that_is_half_there_is_refused_with_what_to_do(plain: Lab, phase: str, said: str, way: str) -> None:
    plain.lab.folder.update_record(phase=phase)
    with pytest.raises(Conflict, match=said) as caught:
        start(plain.lab)
    assert way in caught.value.hint


def test_a_start_waits_until_every_lease_is_renewed_first(ha: Lab, cluster: ClusterServer) -> None:
    stop(ha.lab)
    cluster.asked.clear()
    done = start(ha.lab)
    assert not done.lost_quorum
    leases = next(i for i, path in enumerate(cluster.asked) if "leases" in path)
    who, ready = (i for i, path in enumerate(cluster.asked) if path == "/api/v1/nodes")
    assert who < leases < ready, "first of all who is a member"


def asked_what_runs(cluster: ClusterServer, node: str) -> int:
    return cluster.asked.count(f"/api/v1/nodes/{node}/proxy/runningpods/")


def test_a_start_waits_until_the_kubelets_run_what_is_remembered_as_ready(ha: Lab, cluster: ClusterServer) -> None:
    stop(ha.lab, force=True)
    cluster.asleep = ["coredns-1", "etcd-cp1"]
    start(ha.lab)
    assert cluster.asleep == []
    assert asked_what_runs(cluster, "cp1") == 3


def test_a_pod_that_never_runs_again_is_named(ha: Lab, cluster: ClusterServer) -> None:
    stop(ha.lab, force=True)
    cluster.asleep = ["coredns-1"] * 1000
    with pytest.raises(NotReadyInTime) as caught:
        start(replace(ha.lab, timeout=2.0))
    assert "kube-system/coredns-1 on cp1: was ready before, does not run yet" in "\n".join(caught.value.details)


def test_a_kubelet_that_does_not_tell_what_runs_is_not_waited_for(ha: Lab, cluster: ClusterServer) -> None:
    stop(ha.lab, force=True)
    cluster.silent = {"cp1"}
    start(ha.lab)
    assert asked_what_runs(cluster, "cp1") == 1


def test_without_a_quorum_nobody_waits_for_the_cluster(ha: Lab, cluster: ClusterServer) -> None:
    stop(ha.lab)
    cluster.asked.clear()
    done = start(ha.lab, ["cp1", "w1"])
    assert done.lost_quorum
    assert cluster.asked == []
    assert not start(ha.lab, ["cp2"]).lost_quorum
    assert cluster.asked


def test_what_is_off_is_not_waited_for(ha: Lab, cluster: ClusterServer) -> None:
    stop(ha.lab, ["cp3"])
    cluster.not_ready = {"cp3"}
    stop(ha.lab, ["w1"])
    assert start(ha.lab, ["w1"]).running == ("cp1", "cp2", "w1")


def test_dns_that_answers_every_second_question_is_waited_for_node_by_node(ha: Lab) -> None:
    """As while one of CoreDNS' pods is on a machine that is off and Kubernetes has not noticed."""
    asked: list[str] = []

    class EverySecond(FakeMachines):
        def ssh(self, node: str, command: Sequence[str], *args: Any, **more: Any) -> Completed:
            if "nslookup" not in command[-1]:
                return super().ssh(node, command, *args, **more)
            asked.append(node)
            # cp1 is answered the first time, w1 the second.
            lost = asked.count(node) < 1 + (node == "w1")
            return Completed(tuple(command), int(lost), "", "nslookup: timed out" if lost else "")

    stop(ha.lab, ["cp3"], force=True)
    start(replace(ha.lab, open_machines=opener(EverySecond)), ["cp2"])
    assert sorted(asked) == ["cp1", "cp2", "w1", "w1"], "whoever was answered is not asked again"
