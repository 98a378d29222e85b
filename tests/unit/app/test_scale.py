"""What lab.app.scale hands to the acts: the box, the kubectl, and a check of this machine's room."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk
from support.shelved import shelved_box

from lab.app import scale
from lab.app.labs import Labs
from lab.cluster.acts.scale import Change, Changed
from lab.cluster.lab import Lab
from lab.errors import HostError, Interrupted
from lab.host.capacity import DiskRoom, HostFacts
from lab.store import Home


@pytest.fixture
def lab(home: Path) -> Lab:
    lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="full")
    return Labs().open("demo")


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Change, dict[str, object]]]:
    """The acts that were called, with what they were given."""
    called: list[tuple[str, Change, dict[str, object]]] = []

    def noting(name: str) -> None:
        def act(change: Change, *args: object, **options: object) -> Changed:
            called.append((name, change, {"args": args, **options}))
            return Changed(change.lab.plan, (), (), 0.0)

        monkeypatch.setattr(scale.act, name, act, raising=False)

        monkeypatch.setattr(scale.node_reset, name, act, raising=False)

    for name in ("scale", "add_node", "remove_node", "replace_node", "reset_node", "join_node"):
        noting(name)
    return called


def test_each_function_calls_its_act(lab: Lab, changes: list[tuple[str, Change, dict[str, object]]]) -> None:
    scale.scale(lab, workers=3, allow_even=True, timeout=5)
    scale.add_node(lab, "control-plane", "cp2")
    scale.remove_node(lab, "w1")
    scale.replace_node(lab, "w1")
    scale.reset_node(lab, "w1")
    scale.join_node(lab, "w1")
    assert [(name, given) for name, _, given in changes] == [
        ("scale", {"args": (), "workers": 3, "control_planes": None}),
        ("add_node", {"args": ("control-plane", "cp2")}),
        ("remove_node", {"args": ("w1",)}),
        ("replace_node", {"args": ("w1",)}),
        ("reset_node", {"args": ("w1",)}),
        ("join_node", {"args": ("w1",)}),
    ]
    first = changes[0][1]
    assert (first.allow_even, first.lab.timeout) == (True, 5)
    assert not changes[1][1].allow_even


def test_without_a_box_nodes_can_still_leave(lab: Lab, changes: list[tuple[str, Change, dict[str, object]]]) -> None:
    scale.remove_node(lab, "w1")
    assert changes[0][1].box is None


def test_the_box_is_the_labs_own_or_one_that_fits(
    lab: Lab, changes: list[tuple[str, Change, dict[str, object]]]
) -> None:
    box = shelved_box(lab.home)
    scale.remove_node(lab, "w1")
    assert changes[0][1].box == box.vagrant_box
    lab.folder.update_record(box=box.folder.name)
    scale.remove_node(lab, "w1")
    assert changes[1][1].box == box.vagrant_box
    assert changes[1][1].kubectl == str(box.kubectl)


def test_a_node_without_room_is_refused(
    lab: Lab, changes: list[tuple[str, Change, dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale.scale(lab, workers=2)
    fits, node, disks = changes[0][1].fits, lab.plan.known("w1"), DiskRoom(lab.home.root, 1 << 50, "")
    monkeypatch.setattr(scale, "host_facts", lambda *_: HostFacts(1 << 20, 64, disks, ()))
    fits(lab.plan, [node])
    monkeypatch.setattr(scale, "host_facts", lambda *_: HostFacts(64, 64, disks, ()))
    with pytest.raises(HostError, match="w1 would not fit on this machine") as caught:
        fits(lab.plan, [node])
    assert caught.value.details


def test_ctrl_c(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scale.act, "remove_node", interrupted)
    with pytest.raises(Interrupted, match="stopped half-way; the lab still runs"):
        scale.remove_node(lab, "w1")
