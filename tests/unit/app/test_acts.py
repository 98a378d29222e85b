"""What the functions of lab.app add to the acts below: a listener, a time limit, words for Ctrl-C, fresh looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fake_lab import lab_on_disk

from lab.app import certificates, destroy, power, snapshots, status
from lab.app.labs import Labs
from lab.cluster.acts import certificates as renewal
from lab.cluster.acts import destroy as removal
from lab.cluster.acts import power as switching
from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.cluster.observe import collect
from lab.errors import Interrupted, NotFound, UsageError
from lab.machines.captures import PartKind
from lab.machines.fake.machines import FakeMachines
from lab.plan.changes import with_node
from lab.plan.file import to_json
from lab.snapshots import commands
from lab.store import Home

pytestmark = pytest.mark.usefixtures("quick_watch")


@pytest.fixture
def lab(home: Path) -> Lab:
    lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none")
    found = Labs().open("demo")
    for node in found.plan.nodes:
        FakeMachines(found.home, found.folder, found.plan, found.record, None).write(node.name, PartKind.DISK, "disk")
    return found


def test_events_go_to_the_listener_of_the_call(lab: Lab) -> None:
    seen: list[Event] = []
    power.stop(lab, ["w1"], listener=seen.append)
    assert [(event.node, event.phase, event.state) for event in seen] == [
        ("w1", "shutdown", "begin"),
        ("w1", "shutdown", "done"),
    ]
    assert lab.listener is None


def test_what_a_call_leaves_out_the_lab_keeps(lab: Lab) -> None:
    seen: list[Event] = []
    mine = lab.watched_by(seen.append, 60)
    assert (mine.listener, mine.timeout) == (seen.append, 60)
    assert mine.watched_by(None) == mine
    assert mine.watched_by(None, 5).timeout == 5


@pytest.mark.parametrize(
    ("where", "what", "call", "said"),
    [
        (switching, "stop", power.stop, "stopped half-way"),
        (switching, "start", power.start, "stopped half-way"),
        (switching, "reboot", power.reboot, "stopped half-way"),
        (removal, "destroy", destroy.destroy, "stopped half-way"),
        (renewal, "renew", certificates.renew, "stopped half-way"),
        (commands, "take", snapshots.take, "stopped; the lab runs as before"),
        (commands, "verify", snapshots.verify, "stopped; nothing was changed"),
        (commands, "restore", snapshots.restore, "stopped; the lab has not been touched"),
    ],
)
def test_ctrl_c_says_what_it_has_left(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, where: Any, what: str, call: Callable[[Lab], object], said: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, what, interrupted)
    with pytest.raises(Interrupted, match=said) as caught:
        call(lab)
    assert caught.value.hint


def test_a_note_is_one_line(lab: Lab) -> None:
    assert snapshots.take(lab, "a", note="before\nthe  exercise").manifest.note == "before the exercise"
    listed = snapshots.listing(lab)
    assert (listed.name, [m.name for m in listed.manifests], listed.damaged) == ("a", ["a"], [])
    assert destroy.count_snapshots(lab) == 1


def test_a_students_cluster_is_refused(lab: Lab) -> None:
    with pytest.raises(UsageError, match="klab did not bootstrap the cluster of lab 'demo'") as caught:
        certificates.refuse_students(lab, "ask the student")
    assert caught.value.hint == "ask the student"


def test_each_look_sees_the_lab_as_it_is_then(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "collect_facts", lambda _folder, plan, *_, **__: len(plan.nodes))
    looks = status.watch(lab)
    assert next(looks).facts == 2
    (lab.folder.path / "plan.json").write_text(to_json(with_node(lab.plan, "worker")))
    lab.folder.update_record(phase="destroying")
    seen = next(looks)
    assert (seen.facts, seen.record.phase, len(seen.lab.plan.nodes)) == (3, "destroying", 3)
    destroy.destroy(lab)
    with pytest.raises(NotFound):
        next(looks)
