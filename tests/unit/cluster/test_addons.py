"""Add-ons in a lab: fake machines, and an API server that keeps what is applied. Real clusters: tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cluster_server import ClusterServer
from support.fake_lab import lab_on_disk, opener

from lab.cluster.acts import addons as act
from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.components.addons import addons
from lab.components.addons.base import LABEL
from lab.errors import Conflict, NotReadyInTime
from lab.machines.fake.machines import FakeMachines
from lab.scenario.model import Bootstrap
from lab.store import Home

pytestmark = pytest.mark.usefixtures("quick_watch")
NAME = "local-path"


class Desk:
    def __init__(self, root: Path, cluster: ClusterServer, bootstrap: Bootstrap = "full") -> None:
        self.cluster = cluster
        self.home = Home(root)
        self.folder, self.plan = lab_on_disk(self.home, control_planes=1, workers=1, bootstrap=bootstrap)
        cluster.serve(self.folder, self.plan)
        self.events: list[Event] = []

    @property
    def lab(self) -> Lab:
        return Lab(
            self.home, self.folder, self.plan, opener(FakeMachines), 3, self.events.append, reach=self.cluster.reach
        )

    def state(self, name: str) -> act.State:
        (found,) = (each for each in act.look(self.lab) if each.addon.name == name)
        return found


@pytest.fixture
def desk(tmp_path: Path, cluster: ClusterServer) -> Desk:
    return Desk(tmp_path, cluster)


@pytest.mark.parametrize("name", addons())
def test_an_addon_is_applied_waited_for_and_listed(desk: Desk, name: str) -> None:
    assert not any(each.installed for each in act.look(desk.lab))
    act.add(desk.lab, [name], [])
    assert {each["metadata"]["labels"][LABEL] for each in desk.cluster.applied} == {name}
    assert [each.addon.name for each in act.look(desk.lab) if each.installed] == [name]
    assert desk.state(name).missing == ()
    told = [(e.phase, e.state) for e in desk.events if e.state in {"begin", "done"}]
    assert told == [("add-ons", "begin"), ("add-ons", "done"), (f"{name} works", "begin"), (f"{name} works", "done")]


@pytest.mark.parametrize("name", addons())
def test_an_addon_that_is_removed_leaves_no_object(desk: Desk, name: str) -> None:
    act.add(desk.lab, [name], [])
    act.remove(desk.lab, [name])
    assert desk.cluster.objects == {}
    assert not desk.state(name).installed
    act.remove(desk.lab, [name])


def test_what_does_not_come_up_is_told_with_its_reason(desk: Desk) -> None:
    act.add(desk.lab, [NAME], [])
    for each in desk.cluster.objects.values():
        each["status"] = {}
    assert "Deployment local-path-provisioner has not been looked at yet" in desk.state(NAME).missing
    (path,) = (path for path in desk.cluster.objects if path.endswith("/local-path-provisioner") and "apps" in path)
    works = desk.cluster.objects[path]
    del desk.cluster.objects[path]
    assert not desk.state(NAME).installed
    desk.cluster.objects[path] = {**works, "metadata": {**works["metadata"], "labels": {}}}
    assert not desk.state(NAME).installed, "somebody else's"


def test_an_addon_that_never_works_ends_with_the_time_limit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.cluster_server.WORKS", {})
    with pytest.raises(NotReadyInTime) as caught:
        act.add(desk.lab, [NAME], [])
    assert "local-path-provisioner" in "".join(caught.value.details)


def test_volumes_keep_their_provisioner(desk: Desk) -> None:
    act.add(desk.lab, [NAME], [])
    volume = {"metadata": {"name": "pvc-1"}, "spec": {"storageClassName": NAME}}
    desk.cluster.objects["/api/v1/persistentvolumes"] = {"items": [volume]}
    with pytest.raises(Conflict, match="1 volumes of the lab are in the care of local-path") as caught:
        act.remove(desk.lab, [NAME])
    assert caught.value.details == ("pvc-1",)
    assert desk.state(NAME).installed


@pytest.mark.parametrize("bootstrap", ["prepared", "none"])
def test_a_cluster_that_is_the_students_gets_no_addon(
    tmp_path: Path, cluster: ClusterServer, bootstrap: Bootstrap
) -> None:
    with pytest.raises(Conflict, match=f"bootstrap: {bootstrap}"):
        act.add(Desk(tmp_path, cluster, bootstrap).lab, [NAME], [])
