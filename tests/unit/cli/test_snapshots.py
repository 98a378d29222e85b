"""klab snapshot, snapshots, restore, diff: what a person reads and a program gets, over fake machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fake_lab import lab_on_disk, register
from support.kills import killed_in

from lab.app.labs import Labs
from lab.app.snapshots import Listing
from lab.cli.reports.snapshots import _drawn
from lab.errors import Conflict, Interrupted
from lab.machines.captures import PartKind
from lab.machines.fake.captures import FakeCaptures
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.snapshots import compare as compare_module
from lab.snapshots.manifest import Manifest, NodeRecord
from lab.snapshots.objects import Object
from lab.snapshots.store import Damaged, SnapshotStore
from lab.snapshots.verify import Verification
from lab.store import Home, LabFolder

pytestmark = pytest.mark.usefixtures("quick_watch")

Klab = Callable[..., tuple[str, str]]


def make(home: Path, name: str) -> LabFolder:
    folder, plan = lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none", name=name)
    machines = FakeMachines(Home(home), folder, plan, folder.record(), None)
    for node in plan.nodes:
        machines.write(node.name, PartKind.DISK, "first")
    return folder


@pytest.fixture
def plain(home: Path) -> LabFolder:
    """A lab without a cluster, of two machines that run."""
    return make(home, "plain")


def machines(home: Path, folder: LabFolder) -> FakeMachines:
    return FakeMachines(Home(home), folder, Labs().find(folder.name).plan, folder.record(), None)


def names(folder: LabFolder) -> list[str]:
    return [m.name for m in SnapshotStore(folder).manifests()]


# --- take ------------------------------------------------------------------------------------------------


def test_a_snapshot_says_how_long_the_lab_stood_still_and_how_to_get_back(klab: Klab, plain: LabFolder) -> None:
    out, err = klab("snapshot", "lesson-1", "--note", "before\nthe  exercise")
    assert out == ""
    assert re.search(r"^\[ {2}\d:\d\d\] cp1: freeze \.\.\.$", err, re.MULTILINE)
    assert "cp1: save done" in err
    assert re.search(r"plain: snapshot lesson-1 taken after \d:\d\d; the lab was paused for \d+\.\d s\n", err)
    for part in ("look", "suspend", "save", "resume", "clocks", "digest"):
        assert f"\n  {part} " in err
    assert "klab restore plain lesson-1 restores it" in err
    assert SnapshotStore(plain).pick("lesson-1").note == "before the exercise"


def test_the_lab_and_the_word_take_may_be_left_out(klab: Klab, home: Path, plain: LabFolder) -> None:
    klab("snapshot")
    klab("snapshot", "plain")
    klab("snapshot", "a")
    klab("snapshot", "plain", "b")
    klab("snapshot", "take", "c", "--json")
    klab("snapshot", "--note", "text")
    assert len(names(plain)) == 6
    assert {"a", "b", "c"} < set(names(plain))
    other = make(home, "other")
    klab("snapshot", "other", "a")
    assert names(other) == ["a"]
    assert "more than one lab" in klab("snapshot", "a", code=4)[1]


def test_programs_get_events_and_a_result(klab: Klab, plain: LabFolder) -> None:
    out, _ = klab("snapshot", "lesson-1", "--json")
    *events, result = (json.loads(line) for line in out.splitlines())
    assert ("cp1", "save", "done") in {(e["event"]["node"], e["event"]["phase"], e["event"]["state"]) for e in events}
    assert result["lab"] == "plain"
    assert result["warnings"] == []
    taken = result["snapshot"]
    assert (taken["name"], taken["stands_here"], taken["parent"]) == ("lesson-1", True, "")
    assert [node["name"] for node in taken["nodes"]] == ["cp1", "w1"]
    assert "parts" not in taken["nodes"][0]
    assert taken["size"] > 0


def test_a_lab_that_is_off(klab: Klab, plain: LabFolder) -> None:
    klab("stop", "--force")
    assert re.search(r"snapshot off taken after \d:\d\d, of the disks only", klab("snapshot", "off")[1])
    klab("start")
    assert re.search(r"plain is restored to off and off, as it was after \d:\d\d", klab("restore", "off")[1])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("snapshot", "a", "b"), 2, "a snapshot has one name, not 2"),
        (("snapshot", "take", "rm"), 2, "is a subcommand of klab snapshot"),
        (("snapshot", "a/b"), 2, "is not a valid snapshot name"),
        (("snapshot", "there"), 4, "has a snapshot called 'there' already"),
        (("snapshot", "verify", "nonsense"), 3, "no snapshot called 'nonsense'"),
        (("snapshot", "take", "verify"), 2, "is a subcommand of klab snapshot"),
        (("snapshot", "rm"), 2, "a snapshot is needed"),
        (("snapshot", "rm", "nonsense"), 3, "no snapshot called 'nonsense'"),
        (("snapshot", "rename", "plain"), 2, "a snapshot is needed"),
        (("snapshot", "rename", "there"), 2, "its new one are needed"),
        (("snapshot", "rename", "there", "prune"), 2, "is a subcommand"),
        (("snapshot", "prune"), 2, "--keep"),
        (("snapshot", "prune", "--keep", "-1"), 2, "--keep"),
        (("restore", "nonsense"), 3, "it has: there"),
        (("restore", "there", "b"), 2, "one snapshot at a time"),
        (("restore", "there", "--node", "w9"), 3, "its nodes: cp1, w1"),
        (("restore", "there", "--node", "cp1"), 2, "etcd member"),
        (("restore", "there", "--timeout", "soon"), 2, "'soon' is not a duration"),
        (("diff",), 2, "a snapshot is needed"),
        (("diff", "there", "b", "c"), 2, "two snapshots at most"),
        (("diff", "there"), 2, "no cluster that klab created"),
        (("snapshots", "nonsense"), 3, "no lab called 'nonsense'"),
    ],
)
def test_mistakes(klab: Klab, plain: LabFolder, words: tuple[str, ...], code: int, said: str) -> None:
    klab("snapshot", "there")
    _, err = klab(*words, code=code)
    assert said in err
    assert "hint: " in err
    assert names(plain) == ["there"]


def interrupted(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def test_ctrl_c_takes_a_snapshot_back(klab: Klab, plain: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        register(patch, capture=interrupted)
        _, err = klab("snapshot", "a", code=Interrupted.exit_code)
    assert "nothing of the snapshot is left, and the lab is as it was before" in err
    with monkeypatch.context() as patch:
        register(patch, room=interrupted)
        assert "the lab runs as before" in klab("snapshot", "a", code=Interrupted.exit_code)[1]
    assert names(plain) == []


# --- the list ----------------------------------------------------------------------------------------------


def manifest(name: str, identity: str, parent: str = "", **changes: Any) -> Manifest:
    node = NodeRecord("cp1", "u", "control-plane", True, 0.0, 1.0, 0.0, {}, ())
    known = {"created": float(identity), "guest_time": 0.0, "nodes": (node,), "parent": parent}
    return Manifest(id=identity, name=name, lab_id="i", lab="plain", scenario="s", **{**known, **changes})


def test_the_tree(plain: LabFolder) -> None:
    off = NodeRecord("w1", "u", "worker", False, 0.0, 0.0, 0.0, {}, ())
    manifests = [
        manifest("a", "1"),
        manifest("b", "2", "1", note="first try"),
        manifest("c", "3", "2", nodes=(manifest("x", "9").nodes[0], off)),
        manifest("d", "4", "1", nodes=(off,)),
        manifest("e", "5"),
    ]
    drawn = _drawn(Labs().find("plain"), Listing(manifests, [Damaged("20260101-000000-ab12", "it is damaged: x")], "3"))
    lines = [line.split("  19")[0].rstrip() for line in drawn.splitlines()]
    assert lines[0].split() == ["NAME", "TAKEN", "SIZE", "KEEPS", "NOTE"]
    assert lines[1:6] == ["  a", "  |- b", "* |  `- c", "  `- d", "  e"]
    assert "RAM and disks, 1 off" in drawn.splitlines()[3]
    assert drawn.splitlines()[2].endswith("first try")
    assert "  disks" in drawn.splitlines()[4]
    assert "DAMAGED" in drawn.splitlines()[6]
    assert lines[-1] == "plain is based on c; 0 MiB in all"


def test_the_list_of_a_real_shelf(klab: Klab, plain: LabFolder) -> None:
    assert "klab snapshot plain takes one" in klab("snapshots")[1]
    klab("snapshot", "a")
    klab("snapshot", "b", "--note", "with a word")
    klab("restore", "a")
    out, _ = klab("snapshots")
    assert "\n* a " in out
    assert "`- b" in out
    assert "with a word" in out
    assert "before the restore of a" in out
    assert "plain is based on a; " in out
    found = json.loads(klab("snapshots", "plain", "--json")[0])
    assert found["stands_on"] == "a"
    assert [s["name"] for s in found["snapshots"]][:2] == ["a", "b"]
    assert [s["auto"] for s in found["snapshots"]] == [False, False, True]
    assert found["snapshots"][1]["parent"] == found["snapshots"][0]["id"]
    assert found["damaged"] == []


def test_a_damaged_manifest_is_listed_and_can_be_removed(klab: Klab, plain: LabFolder) -> None:
    klab("snapshot", "a")
    identity = SnapshotStore(plain).pick("a").id
    (plain.snapshots / f"{identity}.json").write_text("{")
    assert "DAMAGED" in klab("snapshots")[0]
    assert json.loads(klab("snapshots", "--json")[0])["damaged"][0]["id"] == identity
    assert identity in klab("snapshot", "rm", identity)[1]
    assert "no snapshot yet" in klab("snapshots")[1]


# --- verify ---------------------------------------------------------------------------------------------------


def damage(folder: LabFolder, snapshot: str, name: str) -> str:
    """Change a bit of a file and leave its size and times; returns the file's name."""
    identity = SnapshotStore(folder).pick(snapshot).id
    file = folder.path / "fake" / "captures" / identity / name
    before, data = file.stat(), file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return f"{identity}/{name}"


def test_what_is_whole(klab: Klab, plain: LabFolder) -> None:
    assert "klab snapshot plain takes one" in klab("snapshot", "verify")[1]
    klab("snapshot", "a")
    klab("snapshot", "b")
    out, err = klab("snapshot", "verify")
    assert out == ""
    assert re.search(r"^\[ {2}\d:\d\d\] w1: verify done$", err, re.MULTILINE)
    assert re.search(r"\nplain: a, b whole; 8 files, 0 MiB, read in \d:\d\d\n$", err)
    assert "plain: b whole; 4 files" in klab("snapshot", "verify", "plain", "b")[1]


def test_what_is_damaged_is_named_with_what_needs_it_and_what_to_do(klab: Klab, plain: LabFolder) -> None:
    for name in ("a", "b", "c"):
        klab("snapshot", name)
    first, second = damage(plain, "a", "disk-w1"), damage(plain, "c", "disk-cp1")
    _, err = klab("snapshot", "verify", code=1)
    assert f"cp1: verify FAILED ({second})" in err
    assert "plain: b whole; 12 files" in err
    assert "error: snapshots a, c of lab 'plain' are damaged\n" in err
    assert re.search(rf"\n  {first} has changed: its digest is \w+, it was \w+\n    a cannot be restored without", err)
    assert "\n    the disk of cp1 as it is now may be based on it, too; " in err
    assert "hint: klab snapshot rm plain a c removes them; journalctl -k shows" in err
    assert "error: snapshot a of lab 'plain' is damaged" in klab("snapshot", "verify", "a", code=1)[1]
    klab("snapshot", "verify", "b")
    klab("snapshot", "rm", "plain", "a", "c")
    klab("snapshot", "verify")


def test_a_verification_as_json(klab: Klab, plain: LabFolder) -> None:
    klab("snapshot", "a")
    klab("snapshot", "b")
    file = damage(plain, "a", "disk-w1")
    out, err = klab("snapshot", "verify", "--json", code=1)
    *events, result = (json.loads(line) for line in out.splitlines())
    assert ("w1", "verify", "failed") in {
        (e["event"]["node"], e["event"]["phase"], e["event"]["state"]) for e in events
    }
    assert (result["lab"], result["whole"], result["damaged"]) == ("plain", ["b"], ["a"])
    (found,) = result["damage"]
    assert (found["file"], found["node"], found["snapshots"], found["below_lab"]) == (file, "w1", ["a"], False)
    assert (result["files"], result["size"] > 0) == (8, True)
    assert "error: snapshot a of lab 'plain' is damaged" in err


def test_ctrl_c_in_a_verification(klab: Klab, plain: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    klab("snapshot", "a")
    register(monkeypatch, content=interrupted)
    _, err = klab("snapshot", "verify", code=Interrupted.exit_code)
    assert "error: stopped; nothing was changed\n" in err
    assert "klab snapshot verify" in err


# --- rm, rename, prune -----------------------------------------------------------------------------------------


def test_remove_rename_prune(klab: Klab, plain: LabFolder) -> None:
    for name in ("a", "b", "c", "d"):
        klab("snapshot", name)
    assert "plain: a, b removed" in klab("snapshot", "rm", "plain", "a", "b", "a")[1]
    assert "plain: c is now called done" in klab("snapshot", "rename", "c", "done")[1]
    klab("restore", "done")
    _, err = klab("snapshot", "prune", "--keep", "1")
    assert "plain: done, auto-" in err
    assert names(plain) == ["d"]
    assert "there was nothing to remove" in klab("snapshot", "prune", "plain", "--keep", "1")[1]
    renamed = json.loads(klab("snapshot", "rename", "d", "e", "--json")[0])
    assert renamed["name"] == "e"
    assert json.loads(klab("snapshot", "rm", "e", "--json")[0]) == {"lab": "plain", "removed": ["e"]}


def test_ctrl_c_in_a_removal_is_finished_by_the_next_command(
    klab: Klab, plain: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    klab("snapshot", "a")
    klab("snapshot", "b")
    with monkeypatch.context() as patch:
        register(patch, delete=interrupted)
        _, err = klab("snapshot", "rm", "a", code=Interrupted.exit_code)
    assert "the next klab command finishes the removal" in err
    assert "plain: an unfinished removal of snapshots was finished" in klab("snapshots")[1]
    assert names(plain) == ["b"]


# --- restore -------------------------------------------------------------------------------------------------


def test_a_restore_says_how_long_each_part_took_and_where_the_way_back_is(
    klab: Klab, home: Path, plain: LabFolder
) -> None:
    klab("snapshot", "a")
    machines(home, plain).write("w1", PartKind.DISK, "now")
    out, err = klab("restore")
    assert out == ""
    assert machines(home, plain).read("w1", PartKind.DISK) == "first"
    assert re.search(r"plain is restored to a and up after \d:\d\d", err)
    for part in ("check", "automatic snapshot", "revert", "resume", "clocks", "verify", "  every machine answers ssh"):
        assert f"\n  {part} " in err
    auto = names(plain)[-1]
    assert f"the state before is kept as {auto}; klab restore plain {auto} restores it" in err
    klab("restore", "plain", auto, "--no-save")
    assert machines(home, plain).read("w1", PartKind.DISK) == "now"
    assert names(plain) == ["a", auto]


def test_one_worker_alone(klab: Klab, home: Path, plain: LabFolder) -> None:
    klab("snapshot", "a")
    for name in ("cp1", "w1"):
        machines(home, plain).write(name, PartKind.DISK, "now")
    assert "w1 is restored to a and up after" in klab("restore", "--node", "w1")[1]
    assert machines(home, plain).read("cp1", PartKind.DISK) == "now"
    assert machines(home, plain).read("w1", PartKind.DISK) == "first"


def test_a_restore_as_json(klab: Klab, plain: LabFolder) -> None:
    klab("snapshot", "a")
    out, _ = klab("restore", "a", "--json")
    result = json.loads(out.splitlines()[-1])
    assert (result["lab"], result["snapshot"]["name"]) == ("plain", "a")
    assert result["automatic"]["name"] == names(plain)[-1]
    assert (result["nodes"], result["running"]) == (["cp1", "w1"], ["cp1", "w1"])
    assert (result["verified"], result["leases_missing"], result["warnings"]) == (False, [], [])
    assert {"check", "revert", "clocks"} < set(result["seconds"])
    assert json.loads(klab("restore", "a", "--no-save", "--json")[0].splitlines()[-1])["automatic"] is None


def test_a_lease_that_is_not_renewed_is_an_error_though_the_lab_is_back(
    klab: Klab, plain: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    klab("snapshot", "a")
    monkeypatch.setattr(Verification, "leases", lambda _self: ["w1: not renewed since the wait began"])
    _, err = klab("restore", code=9)
    assert "plain is restored to a" in err
    assert "error: plain is restored, but not every node has renewed its lease since\n  w1: not renewed" in err
    assert "klab doctor plain" in err
    out, _ = klab("restore", "--json", code=9)
    assert json.loads(out.splitlines()[-1])["leases_missing"] == ["w1: not renewed since the wait began"]


def test_ctrl_c_in_a_restore(klab: Klab, home: Path, plain: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    klab("snapshot", "a")
    machines(home, plain).write("w1", PartKind.DISK, "now")
    with monkeypatch.context() as patch:
        register(patch, platform=interrupted)
        assert "the lab has not been touched" in klab("restore", code=Interrupted.exit_code)[1]
    with monkeypatch.context() as patch:
        patch.setattr(Verification, "wait", interrupted)
        assert "the lab is as it was before" in klab("restore", code=Interrupted.exit_code)[1]
    assert machines(home, plain).read("w1", PartKind.DISK) == "now"
    with monkeypatch.context() as patch:
        patch.setattr(Verification, "leases", interrupted)
        _, err = klab("restore", code=Interrupted.exit_code)
        assert "the lab is restored, but klab has not seen every node renew its lease" in err
    assert machines(home, plain).read("w1", PartKind.DISK) == "first"


def test_a_snapshot_of_a_lab_of_another_size_says_how_to_get_there(klab: Klab, plain: LabFolder) -> None:
    klab("snapshot", "a")
    text = (plain.path / "plan.json").read_text()
    (plain.path / "plan.json").write_text(text.replace('"name": "w1"', '"name": "w7"'))
    _, err = klab("restore", "--no-save", code=Conflict.exit_code)
    assert "w7 is in the lab, but not in the snapshot" in err
    assert "hint: klab node rm plain w7 first" in err


# --- diff -----------------------------------------------------------------------------------------------------


def test_what_differs(klab: Klab, plain: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.snapshots.objects import Difference

    pod, secret, web = Object("default", "Pod", "p"), Object("default", "Secret", "s"), Object("web", "Service", "w")
    asked: list[tuple[str, str | None]] = []

    def compare(_lab: object, first: str, second: str | None) -> Difference:
        asked.append((first, second))
        return Difference((web,), (pod,), (secret,)) if len(asked) < 3 else Difference((), (), ())

    monkeypatch.setattr(compare_module, "compare", compare)
    out, _ = klab("diff", "a")
    assert out.splitlines() == ["- default: Pod p", "~ default: Secret s", "+ web: Service w"]
    found = json.loads(klab("diff", "plain", "a", "b", "--json")[0])
    assert (found["first"], found["second"]) == ("a", "b")
    assert found["changed"] == [{"namespace": "default", "kind": "Secret", "name": "s"}]
    assert klab("diff", "a")[1] == f"no object differs between a and {compare_module.NOW}\n"
    assert asked == [("a", None), ("a", "b"), ("a", None)]


# --- completion ------------------------------------------------------------------------------------------------


def test_names_complete(klab: Klab, home: Path, plain: LabFolder) -> None:
    klab("snapshot", "lesson-1")
    (plain.snapshots / "20260101-000000-abcd.json").write_text("[]")

    def offered(*words: str) -> list[str]:
        env = os.environ | {
            "KLAB_HOME": str(home),
            "_KLAB_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["klab", *words]),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run([sys.executable, "-m", "lab.cli.main"], env=env, capture_output=True, text=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert offered("restore", "l") == ["lesson-1"]
    assert offered("diff", "p") == ["plain"]
    assert offered("snapshot", "rm", "") == ["plain", "lesson-1"]
    assert offered("snapshot", "") == ["prune", "rename", "rm", "take", "verify"]


# --- what a killed klab has left ----------------------------------------------------------------------------------


@pytest.fixture
def killed(klab: Klab, home: Path, plain: LabFolder) -> LabFolder:
    """A lab whose machines are paused: klab was killed while it saved them."""
    klab("snapshot", "a")
    killed_in(FakeCaptures, "capture", lambda: klab("snapshot", "b"))
    assert set(machines(home, plain).states().values()) == {NodeState.PAUSED}
    return plain


TAKEN_BACK = "plain: an unfinished snapshot was undone\n"


@pytest.mark.parametrize("words", [("snapshots",), ("logs", "w1"), ("stop",), ("snapshot", "c"), ("restore",)])
def test_the_next_command_takes_it_back_and_says_so(
    klab: Klab, home: Path, killed: LabFolder, words: tuple[str, ...]
) -> None:
    _, err = klab(*words)
    assert err.startswith(TAKEN_BACK)
    assert err.count("unfinished") == 1
    assert not killed.attempt.exists()
    assert "b" not in names(killed)


def test_what_takes_its_time_is_said_before(klab: Klab, home: Path, plain: LabFolder) -> None:
    klab("snapshot", "a")
    killed_in(FakeCaptures, "revert", lambda: klab("restore", "a"))
    assert klab("snapshots")[1] == (
        "plain: finishing an unfinished restore first\n"
        "plain: an unfinished restore was finished; klab status plain shows how the cluster is\n"
    )


def test_who_only_looks_goes_on_while_another_klab_is_at_work(klab: Klab, home: Path, killed: LabFolder) -> None:
    with killed.lock():
        out, err = klab("snapshots")
        assert "a" in out
        assert err == ""
        assert "being worked on by another klab" in klab("stop", code=4)[1]
    assert killed.attempt.exists()
    assert klab("snapshots")[1] == TAKEN_BACK


def broken(*_: object, **__: object) -> Any:
    from lab.errors import MachineError

    raise MachineError("the machine cannot be resumed", hint="look at it")


def test_what_cannot_be_finished_is_told_to_who_looks_and_stops_who_changes(
    klab: Klab, home: Path, killed: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        register(patch, resume=broken)
        out, err = klab("snapshots")
        assert "a" in out
        assert "plain: the machine cannot be resumed; a klab that was killed had left a snapshot unfinished" in err
        for words in (["stop"], ["scale", "--workers", "2"], ["snapshot"], ["restore"], ["snapshot", "rm", "a"]):
            _, err = klab(*words, code=8)
            assert "error: the machine cannot be resumed" in err
            assert "unfinished" in err
        assert killed.attempt.exists()
    assert klab("snapshots")[1] == TAKEN_BACK


def test_destroy_asks_nothing_of_it(klab: Klab, killed: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, resume=broken)
    assert klab("destroy", "-y")[1] == "removing plain ...\nplain is gone\n"
    assert not killed.path.exists()


def test_where_nothing_was_left_nothing_is_read_or_imported(klab: Klab, home: Path, plain: LabFolder) -> None:
    code = (
        "import sys; from lab.app.labs import Labs, enter; lab = Labs().find()\n"
        "from lab.machines import providers; from lab.machines.fake.provider import FakeProvider\n"
        "providers.PROVIDERS['fake'] = FakeProvider()\n"
        "before = set(sys.modules)\n"
        "enter(lab)\n"
        "print([name for name in set(sys.modules) - before if name.startswith('lab.snapshots')])"
    )
    env = os.environ | {"KLAB_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_question_of_destroy_counts_the_snapshots(
    klab: Klab, plain: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.confirm", lambda text, **_: asked.append(text))
    klab("snapshot", "a")
    klab("snapshot", "b")
    klab("destroy")
    assert asked == ["Remove lab plain (cp1, w1), its 2 snapshots and everything on it?"]


# --- on a terminal ------------------------------------------------------------------------------------------------


def test_the_live_table_prints_what_must_be_read_above_itself(plain: LabFolder) -> None:
    import io

    from rich.console import Console

    from lab.cli.terminal.progress import LiveTable
    from lab.cluster.events import Event

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    with LiveTable(Labs().find("plain").plan, console, first="check") as table:
        table(Event(1.0, "", "certificates", "note", "they expired 35 days ago"))
        table(Event(2.0, "w1", "revert", "done"))
        table(Event(3.0, "w1", "clock", "done"))
        table(Event(4.0, "", "etcd's members agree", "begin"))
    said = screen.getvalue()
    assert "certificates: they expired 35 days ago" in said
    assert "check" in said
    assert "running" in said
    assert "waiting for: etcd's members agree" in said
