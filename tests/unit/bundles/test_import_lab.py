"""Making labs from bundles: the same lab elsewhere, refused before anything is touched, finished after a kill."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk
from support.fake_lab import opener
from support.kills import killed_in
from support.shelved import flipped, shelve, shelved_box

from lab.boxes import store
from lab.boxes.manifest import Box
from lab.bundles import import_lab as module
from lab.bundles.export_lab import write_bundle
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.import_lab import Made, Request, create_from_bundle, plan_of, refuse_conflict, room_problems
from lab.cluster.acts.destroy import destroy
from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError, ClusterError, Conflict, LabError, MachineError, NotReadyInTime, UsageError
from lab.host.capacity import DiskRoom
from lab.host.profile import HostProfile
from lab.machines.captures import PartKind
from lab.machines.fake.disk_transfer import FakeDiskTransfer
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.plan.file import from_json
from lab.plan.model import Plan
from lab.store import Home, LabFolder

PROFILE = HostProfile(accelerated=True, dilation=1.0)


@dataclass
class Student:
    """Another home, and a bundle."""

    home: Home
    file: BundleFile
    events: list[Event] = field(default_factory=list)

    def lab(self, name: str | None = None, **changes: Any) -> Lab:
        plan = plan_of(self.file.bundle, name)
        made = Lab(self.home, self.home.lab(plan.name), plan, opener(), 60, self.events.append)
        return replace(made, **changes)

    def create(self, name: str | None = None, *, profile: HostProfile = PROFILE, **changes: Any) -> Made:
        return create_from_bundle(Request(self.lab(name, **changes), self.file, "fake", profile))

    def machines(self, folder: LabFolder) -> FakeMachines:
        return FakeMachines(self.home, folder, self.plan(folder), folder.record(), None)

    def plan(self, folder: LabFolder) -> Plan:
        return from_json((folder.path / "plan.json").read_text())

    def disks(self, folder: LabFolder) -> dict[str, str]:
        machines = self.machines(folder)
        return {n.name: machines.read(n.name, PartKind.DISK) for n in self.plan(folder).nodes}

    def assert_untouched(self) -> None:
        left = [file for file in self.home.root.rglob("*") if file.is_file()] if self.home.root.exists() else []
        # What klab's own locks leave is empty.
        assert [file for file in left if file.name not in {".lock"}] == []

    @property
    def whole(self) -> dict[str, str]:
        return {"cp1": "disk of cp1", "w1": "disk of w1"}


@pytest.fixture
def student(desk: Desk, tmp_path: Path) -> Student:
    shelve(desk.lab.home, desk.lab.folder, desk.lab.plan)
    desk.machines.power_off(["cp1", "w1"])
    file = write_bundle(desk.lab, "lesson-3", tmp_path / "lesson-3.klab")
    return Student(Home(tmp_path / "student"), file)


# --- the same lab -------------------------------------------------------------------------------------


def test_the_same_lab_elsewhere(desk: Desk, student: Student) -> None:
    made = student.create()
    folder = made.folder
    assert (folder.name, made.already, made.power.running) == ("demo", False, ("cp1", "w1"))
    assert student.disks(folder) == student.whole
    assert student.plan(folder) == desk.lab.plan
    old, new = desk.lab.folder.record(), folder.record()
    assert (new.phase, new.created, new.seat, new.box) == ("ready", old.created, old.seat, old.box)
    assert new.checkpoint == student.file.digest
    assert new.id != old.id
    assert new.epoch > old.epoch
    for name in ("pki/ca.key", "pki/sa.key", "pki/admin.crt", "ssh/id_ed25519"):
        assert (folder.path / name).read_bytes() == (desk.lab.folder.path / name).read_bytes()
        assert (folder.path / name).stat().st_mode & 0o777 == 0o600
    assert (folder.path / "pki").stat().st_mode & 0o777 == 0o700
    assert folder.kubeconfig.read_text() == desk.lab.folder.kubeconfig.read_text()
    assert (folder.path / "scenario.yaml").read_text() == "version: 1\nname: demo\n"
    (box,) = store.list_boxes(student.home)
    store.verify(student.home, box)
    assert box.digest == student.file.bundle.box.digest
    assert store.vagrant_box(student.home, box, "libvirt", [20]).is_file()
    assert made.warnings == ()


def test_under_another_name(student: Student) -> None:
    made = student.create("mine")
    plan = student.plan(made.folder)
    assert (made.folder.name, plan.name, plan.networks.name) == ("mine", "mine", "klab-mine")
    assert plan.networks.management_name == "klab-mine-mgmt"
    assert plan.nodes == student.file.bundle.plan.nodes
    assert plan.networks.cidr == student.file.bundle.plan.networks.cidr
    assert "klab-mine" in made.folder.kubeconfig.read_text()
    with pytest.raises(ValueError, match="is not a name"):
        student.lab("Not A Name")


def test_each_step_is_told(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.cluster.progress.EVERY_SECONDS", 0.0)
    student.create()
    told = [(e.node, e.phase, e.state) for e in student.events]
    expected = [
        ("", "verify", "begin"),
        ("", "verify", "done"),
        ("", "box", "begin"),
        ("", "box", "done"),
        ("", "create", "begin"),
        ("", "disks", "begin"),
        ("cp1", "disk", "done"),
        ("w1", "disk", "done"),
        ("", "disks", "done"),
        ("", "create", "done"),
        ("cp1", "start", "done"),
    ]
    assert [told.index(each) for each in expected] == sorted(told.index(each) for each in expected)


def test_a_second_time_it_is_started_and_left_as_it_is(student: Student) -> None:
    folder = student.create().folder
    machines = student.machines(folder)
    machines.power_off(["cp1", "w1"])
    machines.write("w1", PartKind.DISK, "a student's work")
    # Its box and even the rest of the file are not needed any more.
    made = student.create()
    assert (made.already, made.power.running) == (True, ("cp1", "w1"))
    assert student.disks(folder)["w1"] == "a student's work"


def test_a_box_that_is_there_is_not_fetched(student: Student) -> None:
    shelved_box(student.home)
    before = {file: file.stat().st_mtime_ns for file in student.home.boxes.rglob("*")}
    student.create()
    assert {file: file.stat().st_mtime_ns for file in student.home.boxes.rglob("*")} == before


def test_a_box_that_is_there_but_damaged_is_put_anew(student: Student) -> None:
    disk = shelved_box(student.home).disk
    whole = disk.read_bytes()
    flipped(disk, 99)
    student.create()
    store.verify(student.home, store.list_boxes(student.home)[0])
    assert disk.read_bytes() == whole


def test_it_can_be_destroyed_and_made_again(student: Student) -> None:
    folder = student.create().folder
    destroy(student.lab(), lambda _line: None)
    assert not folder.exists
    assert student.disks(student.create().folder) == student.whole


# --- what is refused ----------------------------------------------------------------------------------


def test_a_changed_byte_leaves_nothing(student: Student) -> None:
    member = student.file.bundle.member("nodes/w1.qcow2.gz")
    flipped(student.file.path, student.file._start(member) + 5)
    with pytest.raises(UsageError, match="damaged") as caught:
        student.create()
    assert "nodes/w1.qcow2.gz has changed" in caught.value.details[0]
    student.assert_untouched()


def test_a_box_that_is_another_one_leaves_nothing(student: Student) -> None:
    box = replace(student.file.bundle.box, digest="0" * 64)
    told = replace(student.file, bundle=replace(student.file.bundle, box=box))
    with pytest.raises(BoxError, match="from lesson-3 is damaged"):
        replace(student, file=told).create()
    student.assert_untouched()


def test_machines_of_somebody_elses_leave_nothing(student: Student) -> None:
    with pytest.raises(Conflict, match="does not belong to this lab"):
        student.create(open_machines=opener(foreign=True))
    student.assert_untouched()


def test_a_name_that_is_taken(desk: Desk, student: Student) -> None:
    with pytest.raises(Conflict, match="exists and is not from this bundle") as caught:
        replace(student, home=desk.lab.home).create()
    assert "--name" in caught.value.hint
    student.create("other")
    desk.lab.folder.update_record(phase="destroying")
    with pytest.raises(Conflict, match="half destroyed"):
        refuse_conflict(desk.lab.home, desk.lab.plan, student.file)


def test_the_same_machines_twice(desk: Desk, student: Student) -> None:
    with pytest.raises(Conflict, match="lab 'demo' has the same machines") as caught:
        replace(student, home=desk.lab.home).create("twin")
    assert "klab destroy demo" in caught.value.hint
    assert not desk.lab.home.lab("twin").path.exists()
    # A lab whose plan cannot be read does not keep others from being made.
    (desk.lab.folder.path / "plan.json").write_text("{")
    replace(student, home=desk.lab.home).create("twin")


def test_a_bundle_without_its_box(desk: Desk, student: Student, tmp_path: Path) -> None:
    bare = replace(student, file=write_bundle(desk.lab, "bare", tmp_path / "bare.klab", with_box=False))
    with pytest.raises(BoxError, match="written without its box") as caught:
        bare.create()
    assert f"klab box build debian-13 --kubernetes {DEFAULT}" in caught.value.hint
    bare.assert_untouched()
    box = shelved_box(student.home)
    assert bare.disks(bare.create().folder) == bare.whole
    flipped(box.disk, 99)
    with pytest.raises(BoxError, match="damaged"):
        module.box_at_hand(bare.home, bare.file.bundle)


def test_room(student: Student) -> None:
    bundle = student.file.bundle
    in_box = bundle.member("box/disk.qcow2.gz")
    nodes = sum(member.content for member in bundle.members if member != in_box)
    both = nodes + 2 * bundle.box.files["disk.qcow2"][0]
    box = shelved_box(student.home)

    def told(box: Box | None, home: int, disks: int, *, place: str = "") -> list[str]:
        rooms = (
            DiskRoom(student.home.root, home, "KLAB_HOME"),
            DiskRoom(Path(place or student.home.root), disks, "pool"),
        )
        return [line.rpartition("; ")[2] for line in room_problems(bundle, box, *rooms)]

    assert told(None, both, both) == []
    assert told(None, both - 1, both - 1) == ["pool"], "on one disk they share the room"
    assert told(box, nodes, nodes) == []
    assert told(None, both - nodes, nodes, place="/proc") == [], "each on its own disk"
    assert told(None, both - nodes - 1, nodes - 1, place="/proc") == ["KLAB_HOME", "pool"]
    assert told(box, 0, nodes, place="/proc") == []


def test_another_host_is_told(desk: Desk, student: Student, tmp_path: Path) -> None:
    later = desk.of(clock=lambda: desk.lab.clock() + 10 * 24 * 3600)
    student.file = write_bundle(later, "later", tmp_path / "later.klab")
    made = student.create(profile=HostProfile(accelerated=False, dilation=0.2))
    assert made.warnings[0].startswith("this machine's clock is behind")
    assert "with hardware virtualization and runs without" in made.warnings[1]
    assert made.folder.record().dilation == 0.2


# --- what ends half-way -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "method", "call"), [(BundleFile, "verify", 1), (BundleFile, "write", 1), (module, "put", 1)]
)
def test_a_kill_before_there_is_a_lab(student: Student, owner: Any, method: str, call: int) -> None:
    killed_in(owner, method, student.create, call=call)
    assert not student.home.lab("demo").path.exists()
    assert store.list_boxes(student.home) == []
    assert student.disks(student.create().folder) == student.whole


@pytest.mark.parametrize(
    ("owner", "method", "call"),
    [
        (module, "_write_folder", 1),
        (module, "write_atomic", 2),
        (module, "_write_secrets", 1),
        (BundleFile, "write", 2),
        (module, "load_or_make", 1),
        (FakeDiskTransfer, "import_disks", 1),
        (FakeMachines, "start", 1),
        (module, "start", 1),
    ],
)
def test_a_kill_is_made_good_by_the_same_command(student: Student, owner: Any, method: str, call: int) -> None:
    killed_in(owner, method, student.create, call=call)
    made = student.create()
    assert student.disks(made.folder) == student.whole
    assert made.power.running == ("cp1", "w1")
    assert student.lab().finished().phase == "ready"


def test_ctrl_c_leaves_a_lab_that_the_same_command_finishes(student: Student) -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        student.create(open_machines=opener(import_disks=interrupted))
    folder = student.home.lab("demo")
    assert folder.record().phase == "creating"
    with pytest.raises(Conflict, match="half made"):
        student.lab().finished()
    assert student.disks(student.create().folder) == student.whole


def test_a_half_made_lab_can_be_destroyed(student: Student) -> None:
    killed_in(FakeDiskTransfer, "import_disks", student.create)
    folder = student.home.lab("demo")
    destroy(student.lab(), lambda _line: None)
    assert not folder.path.exists()


def test_machines_that_a_killed_klab_started_are_waited_for(student: Student) -> None:
    """Without a cluster nothing else says that they are there."""
    asked: list[str] = []

    def ssh(machines: FakeMachines, node: str, *words: Any, **options: Any) -> Any:
        asked.append(node)
        if asked.count(node) < 3:
            raise MachineError(f"{node} does not answer ssh")
        return FakeMachines.ssh(machines, node, *words, **options)

    folder = student.create().folder
    assert set(student.machines(folder).states().values()) == {NodeState.RUNNING}
    made = student.create(open_machines=opener(ssh=ssh))
    assert made.power.running == ("cp1", "w1")
    assert (asked.count("cp1"), asked.count("w1")) == (3, 3)

    def silent(*_: Any, **__: Any) -> Any:
        raise MachineError("it does not answer ssh")

    with pytest.raises(NotReadyInTime) as caught:
        student.create(open_machines=opener(ssh=silent), timeout=0.2)
    assert "cp1 does not answer" in str(caught.value)
    assert "klab logs cp1" in caught.value.hint


# --- certificates that have ended ---------------------------------------------------------------------


@pytest.mark.parametrize("expired", [True, False])
def test_certificates_that_ended_meanwhile_are_renewed(
    student: Student, monkeypatch: pytest.MonkeyPatch, expired: bool
) -> None:
    """The means are those of klab start and klab certs renew, which have tests of their own."""
    real, renewed = module.start, []

    def start(switch: Any) -> Any:
        power = real(switch)
        if not renewed:
            raise ClusterError("certificates of lab 'demo' have expired")
        return power

    def judge(*_: object) -> None:
        if expired:
            raise ClusterError("certificates of lab 'demo' have expired")

    monkeypatch.setattr(module, "start", start)
    monkeypatch.setattr(module, "refuse_expired", judge)
    monkeypatch.setattr(module, "renew", renewed.append)
    if not expired:
        with pytest.raises(ClusterError):
            student.create()
        assert renewed == []
        return
    made = student.create()
    assert [renewal.folder for renewal in renewed] == [made.folder]
    assert set(student.machines(made.folder).states().values()) == {NodeState.RUNNING}
    notes = [e.text for e in student.events if e.state == "note"]
    assert notes == ["certificates of lab 'demo' have expired: they are renewed"]


def test_what_a_lab_lacks_is_an_error_like_in_start(student: Student) -> None:
    def fail(*_: object) -> Any:
        raise LabError("libvirtd does not answer")

    with pytest.raises(LabError, match="does not answer"):
        student.create(open_machines=opener(start=fail))
    assert student.home.lab("demo").record().phase == "ready"
    assert student.create().power.running == ("cp1", "w1")


def test_the_file_may_be_gone_later(student: Student) -> None:
    student.create()
    shutil.rmtree(student.home.boxes)
    assert open_bundle(student.file.path) == student.file
    assert student.create().already
