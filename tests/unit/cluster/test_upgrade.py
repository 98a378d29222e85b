"""An upgrade node by node: its order, what a failure or a kill leaves, and that the same command continues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.fake_lab import lab_on_disk, opener
from support.kills import killed_in
from support.upgradable import AFTER, BEFORE, Nodes, UpgradableMachines, UpgradableServer, kubectl

from lab.cluster.acts import drain, upgrade
from lab.cluster.acts.upgrade import Order
from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.cluster.wait import watch
from lab.errors import ClusterError, Conflict
from lab.files import write_atomic
from lab.machines.protocol import NodeState
from lab.plan.file import from_json, to_json
from lab.plan.versions import with_version
from lab.render import upgrade as scripts
from lab.scenario.catalog import load_catalog
from lab.store import Home

VERSIONS = load_catalog().kubernetes


class World:
    """A lab of version BEFORE that can be upgraded."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, planes: int = 1, workers: int = 2) -> None:
        root.mkdir(exist_ok=True)
        self.home = Home(root / "home")
        self.folder, plan = lab_on_disk(self.home, control_planes=planes, workers=workers, bootstrap="full")
        self.before = with_version(plan, VERSIONS[BEFORE])
        write_atomic(self.folder.plan_file, to_json(self.before))
        self.names = [node.name for node in plan.nodes]
        self.nodes = Nodes(root / "nodes", self.names)
        self.server = UpgradableServer(self.nodes)
        self.server.serve(self.folder, self.before)
        self.file = root / "upgrade.tar.zst"
        self.file.write_text("the file")
        self.events: list[Event] = []
        patch.setattr(drain.process, "run", lambda argv, **_: kubectl(self.nodes, *argv[1:]))

    def order(self, **machines: Any) -> Order:
        made = type("Machines", (UpgradableMachines,), {"states_of": self.nodes, **machines})
        lab = Lab(self.home, self.folder, self.before, opener(made), 60, self.events.append, reach=self.server.reach)
        return Order(lab, VERSIONS[AFTER], self.file, "kubectl", "before-1.35.4")

    @property
    def version(self) -> str:
        return from_json(self.folder.plan_text()).kubernetes.version

    def check_done(self) -> None:
        assert self.version == AFTER
        assert self.folder.record().upgrading_to == ""
        for name in self.names:
            state = self.nodes.of(name)
            assert (state["kubelet"], state["unschedulable"], state["annotations"]) == (AFTER, False, {})


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(watch, "API_POLL_SECONDS", 0.01)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    made: list[World] = []

    def world(name: str = "world", **how: int) -> World:
        made.append(World(tmp_path / name, monkeypatch, **how))
        return made[-1]

    yield world
    for each in made:
        each.server.close()


def test_control_planes_come_before_workers_and_each_is_drained_before_its_kubelet(make: Any) -> None:
    world = make(planes=3, workers=1)
    done = upgrade.upgrade(world.order())
    assert (done.before, done.after, done.nodes) == (BEFORE, AFTER, ("cp1", "cp2", "cp3", "w1"))
    received, rest = world.nodes.done[:4], world.nodes.done[4:]
    assert sorted(received) == [f"{name} receives the file" for name in world.names]
    steps = [f"{name} {step}" for name in world.names for step in ("node", "drain", "kubelet", "uncordon")]
    assert rest == ["cp1 apply", *steps[1:]]
    world.check_done()


def test_a_lab_that_has_the_version_is_left_as_it_is(make: Any) -> None:
    world = make()
    upgrade.upgrade(world.order())
    told = len(world.nodes.done)
    assert upgrade.upgrade(world.order()).nodes == ()
    assert len(world.nodes.done) == told
    world.check_done()


def test_what_was_done_by_hand_is_not_done_again(make: Any) -> None:
    world = make()
    for name in ("cp1", "w1"):
        world.nodes.change(name, kubelet=AFTER)
    assert upgrade.upgrade(world.order()).nodes == ("w2",)
    assert [line for line in world.nodes.done if not line.startswith("w2")] == []
    world.check_done()


def test_packages_alone_change_no_node(make: Any) -> None:
    world = make()
    upgrade.spread(world.order().lab, VERSIONS[AFTER], world.file)
    assert sorted(world.nodes.done) == [f"{name} receives the file" for name in world.names]
    assert world.version == BEFORE
    assert world.folder.record().upgrading_to == ""


def test_a_node_that_a_person_has_cordoned_stays_so(make: Any) -> None:
    world = make()
    world.nodes.change("w1", unschedulable=True)
    upgrade.upgrade(world.order())
    assert world.nodes.of("w1")["unschedulable"]
    assert not world.nodes.of("w2")["unschedulable"]
    assert world.nodes.of("w1")["kubelet"] == AFTER


@pytest.mark.parametrize("step", ["dpkg-deb", "kubeadm upgrade", "restart kubelet"])
def test_a_node_that_fails_is_named_and_the_same_command_continues(make: Any, step: str) -> None:
    world = make()
    with pytest.raises(ClusterError) as caught:
        upgrade.upgrade(world.order(failing=step))
    assert "w1 cannot be upgraded to Kubernetes 1.35.4" in caught.value.message
    assert "the last words of a script" in caught.value.details
    assert "the same command again to continue" in str(caught.value.hint)
    assert "klab restore demo before-1.35.4" in str(caught.value.hint)
    assert (world.version, world.folder.record().upgrading_to) == (BEFORE, AFTER)
    upgrade.upgrade(replace(world.order(), snapshot=""))
    world.check_done()
    assert world.nodes.done.count("cp1 kubelet") == 1


def test_kubeadm_is_tried_again_where_an_api_server_is_not_back_yet(make: Any) -> None:
    world = make()
    left = [upgrade.ATTEMPTS - 1]

    def act(machines: UpgradableMachines, node: str, command: list[str], stdin: Any) -> int:
        if "kubeadm upgrade apply" in str(stdin) and left[0]:
            left[0] -= 1
            return 1
        return UpgradableMachines._act(machines, node, command, stdin)

    upgrade.upgrade(world.order(_act=act))
    world.check_done()
    assert [e.text for e in world.events if e.state == "retry"] == ["the last words of a script"] * 2


def test_a_script_that_a_killed_klab_has_left_is_waited_for(make: Any) -> None:
    world = make()

    def act(machines: UpgradableMachines, node: str, command: list[str], stdin: Any) -> int:
        if command[-1] == scripts.WAIT:
            world.nodes.change("w1", kubelet=AFTER)
        return UpgradableMachines._act(machines, node, command, stdin)

    upgrade.upgrade(world.order(_act=act))
    assert "w1 node" not in world.nodes.done
    world.check_done()


def calls(world: World, owner: Any, method: str, patch: pytest.MonkeyPatch) -> int:
    """How often an upgrade calls a method."""
    original, count = getattr(owner, method), [0]

    def counted(*words: Any, **options: Any) -> Any:
        count[0] += 1
        return original(*words, **options)

    with patch.context() as inside:
        inside.setattr(owner, method, counted)
        upgrade.upgrade(world.order())
    return count[0]


@pytest.mark.parametrize(
    ("owner", "method"),
    [(UpgradableMachines, "ssh"), (drain.process, "run"), (upgrade, "write_atomic")],
    ids=["script", "kubectl", "plan"],
)
def test_a_klab_that_is_killed_anywhere_is_continued_by_the_same_command(
    make: Any, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str
) -> None:
    for call in range(1, calls(make(workers=1), owner, method, monkeypatch) + 1):
        world = make(f"killed-{call}", workers=1)
        killed_in(owner, method, partial(upgrade.upgrade, world.order()), call=call)
        assert world.folder.record().upgrading_to == AFTER
        upgrade.upgrade(replace(world.order(), snapshot=""))
        world.check_done()


def test_a_lab_that_does_not_run_or_is_the_students_is_refused(make: Any) -> None:
    world = make()
    machines = world.order().lab.machines()
    machines.set_state("w2", NodeState.STOPPED)
    with pytest.raises(Conflict, match="not every machine of lab 'demo' runs") as caught:
        upgrade.upgrade(world.order())
    assert caught.value.details == ("w2 is stopped",)
    order = world.order()
    with pytest.raises(Conflict, match="no cluster that klab created"):
        upgrade.upgrade(replace(order, lab=replace(order.lab, plan=replace(world.before, bootstrap="none"))))
    assert world.nodes.done == []


def test_a_node_that_is_no_member_is_named(make: Any) -> None:
    world = make()
    world.server.nodes.remove("w2")
    with pytest.raises(Conflict, match="the cluster has no node called w2") as caught:
        upgrade.upgrade(world.order())
    assert "klab node replace w2" in str(caught.value.hint)
