"""Create over the shipped fake: every way it can end, in milliseconds. Real clusters: tests/e2e."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from support import fake_lab
from support.cluster_server import refusing
from support.registry_nodes import RegistryMachines, machines
from support.saved_images import CONTAINERD, image, layout_files, write_tar

from lab.cluster.acts import create as module
from lab.cluster.acts.create import Created, CreateRequest
from lab.cluster.acts.destroy import destroy
from lab.cluster.acts.steps import Step
from lab.cluster.events import Event, Listener
from lab.cluster.lab import Lab, OpenMachines, again
from lab.cluster.wait.power_on import PowerOn
from lab.cluster.wait.watch import FAILED
from lab.errors import ClusterError, Conflict, HostError, LabError, MachineError, NotReadyInTime
from lab.files import write_atomic
from lab.host.profile import HostProfile
from lab.images.record import LabImage
from lab.images.sources import Sources, parse_source
from lab.images.store import Store
from lab.machines.fake.behaviour import Behaviour
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog
from lab.scenario.library import load_scenario
from lab.scenario.parser import parse_scenario
from lab.store import Home, LabFolder, Record
from lab.waiting import Deadline

PLAIN = "version: 1\nname: plain\ntopology: {workers: 1}\nbootstrap: none\n"
FULL = "version: 1\nname: full\ntopology: {workers: 1}\n"
WELL = "klab: cloud-init begin\nklab: boot done\nklab: clean begin\nklab: clean done\n"


pytestmark = pytest.mark.usefixtures("quick_watch")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


class TimeIsUp:
    """A deadline that passes when the test says so, whatever the machine is busy with."""

    def __init__(self) -> None:
        self.event = threading.Event()

    @property
    def passed(self) -> bool:
        return self.event.is_set()

    @property
    def left(self) -> float:
        return 0.0 if self.passed else 60.0

    def at_most(self, seconds: float) -> float:
        return min(self.left, seconds)


@pytest.fixture
def time_is_up() -> TimeIsUp:
    return TimeIsUp()


class Scripted(FakeMachines):
    """Fake machines whose consoles say what the test wants, and that may act during `up`."""

    def __init__(self, *lab: Any, says: str, act: Callable[[Scripted], None] | None) -> None:
        super().__init__(*lab)
        self.says, self.act = says, act

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        super().up(deadline, on_line, nodes)
        for file in self.consoles().values():
            with file.open("a") as out:
                out.write(self.says)
        if self.act is not None:
            self.act(self)


def opener(*, says: str = WELL, act: Callable[[Scripted], None] | None = None, **how: Any) -> Any:
    return fake_lab.opener(partial(Scripted, says=says, act=act), **how)


@dataclass(frozen=True)
class Wanted:
    """A scenario's plan, and what is asked for with it."""

    plan: Plan
    request: CreateRequest


def request_for(text: str, catalog: Catalog) -> Wanted:
    profile = HostProfile(accelerated=True, dilation=1.0)
    return Wanted(decide(parse_scenario(text, catalog), catalog), CreateRequest(text, "fake", profile, "box", None))


def create(
    home: Home,
    wanted: Wanted,
    machines: OpenMachines,
    listener: Listener | None = None,
    deadline: TimeIsUp | None = None,
) -> Created:
    lab = Lab(home, home.lab(wanted.plan.name), wanted.plan, machines, 300, listener, reach=refusing)
    if deadline is not None:
        lab = replace(lab, deadline_after=lambda _seconds: cast("Deadline", deadline))
    return module.create(lab, wanted.request)


def test_plain_machines_come_up_and_the_seeds_are_gone(home: Home, catalog: Catalog) -> None:
    seen: list[Event] = []
    created = create(home, request_for(PLAIN, catalog), opener(), seen.append)
    assert not created.already
    assert home.lab("plain").record().phase == "ready"
    assert not list(home.root.rglob("*.iso"))
    assert {(e.node, e.phase) for e in seen if e.state == "done"} >= {("cp1", "clean"), ("w1", "clean")}


def test_what_the_consoles_say_is_noted_though_every_machine_is_up_at_once(
    home: Home, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = PowerOn.start

    def start_and_end(power: PowerOn) -> None:
        start(power)
        power._thread.join()

    monkeypatch.setattr(PowerOn, "start", start_and_end)
    seen: list[Event] = []
    create(home, request_for(PLAIN, catalog), opener(), seen.append)
    assert {(e.node, e.phase) for e in seen if e.state == "done"} >= {("cp1", "clean"), ("w1", "clean")}


def test_a_new_lab_with_something_foreign_in_its_way_leaves_nothing(home: Home, catalog: Catalog) -> None:
    with pytest.raises(Conflict, match="does not belong to this lab"):
        create(home, request_for(PLAIN, catalog), partial(FakeMachines, behaviour=Behaviour(foreign=True)))
    assert not home.lab("plain").path.exists()
    assert create(home, request_for(PLAIN, catalog), opener()).folder.exists


def test_a_second_create_finds_it_done(home: Home, catalog: Catalog) -> None:
    create(home, request_for(PLAIN, catalog), opener())
    assert create(home, request_for(PLAIN, catalog), opener(says="")).already


def test_a_second_create_starts_what_was_stopped(home: Home, catalog: Catalog) -> None:
    request = request_for(PLAIN, catalog)
    create(home, request, opener())
    machines = FakeMachines(home, home.lab("plain"), request.plan, home.lab("plain").record(), None)
    machines.set_state("w1", NodeState.STOPPED)
    create(home, request, opener())
    assert machines.states()["w1"] == NodeState.RUNNING


@pytest.mark.parametrize(("text", "way"), [(PLAIN, "klab destroy -y plain"), (FULL, "klab node replace full w1")])
def test_a_machine_that_is_gone_is_not_made_without_a_seed(home: Home, catalog: Catalog, text: str, way: str) -> None:
    request = request_for(text, catalog)
    folder = home.lab(request.plan.name)
    create(home, request_for(PLAIN.replace("plain", request.plan.name), catalog), opener())
    write_atomic(folder.path / "plan.json", to_json(request.plan))
    FakeMachines(home, folder, request.plan, folder.record(), None).remove("w1", print)
    with pytest.raises(MachineError, match="w1 has no machine") as caught:
        create(home, request, opener())
    assert way in caught.value.hint


def test_another_scenario_under_the_same_name_is_refused_with_the_difference(home: Home, catalog: Catalog) -> None:
    create(home, request_for(PLAIN, catalog), opener())
    with pytest.raises(Conflict) as caught:
        create(home, request_for(PLAIN.replace("workers: 1", "workers: 2"), catalog), opener())
    assert any("w2" in line for line in caught.value.details)
    assert "klab scale plain" in caught.value.hint
    assert "klab destroy plain" in caught.value.hint
    with pytest.raises(Conflict) as caught:
        create(home, request_for(PLAIN + "cpus: 3\nnetwork: {cidr: 192.168.60.0/24}\n", catalog), opener())
    assert "klab scale" not in caught.value.hint


@pytest.mark.parametrize("damage", [None, b"{", b"\xff"])
def test_a_lab_whose_plan_is_gone_or_damaged_is_left_alone(home: Home, catalog: Catalog, damage: bytes | None) -> None:
    create(home, request_for(PLAIN, catalog), opener())
    file = home.lab("plain").path / "plan.json"
    file.unlink() if damage is None else file.write_bytes(damage)
    with pytest.raises(LabError, match="the lab's plan is damaged") as caught:
        create(home, request_for(PLAIN, catalog), opener())
    assert "plan.json" in caught.value.details[0]
    assert "klab destroy" in caught.value.hint


@pytest.mark.parametrize(
    ("scenario", "name", "seat", "checkpoint", "wanted"),
    [
        ("1m2w", "1m2w", 0, "", "klab create 1m2w"),
        ("1m2w", "lesson", 3, "", "klab create 1m2w --name lesson --seat 3"),
        ("mine", "mine", 0, "", "klab create FILE"),
        ("1m2w", "lesson", 0, "digest", "klab import FILE --name lesson"),
    ],
)
def test_the_command_that_goes_on_is_about_the_same_lab(
    catalog: Catalog, scenario: str, name: str, seat: int, checkpoint: str, wanted: str
) -> None:
    plan = decide(load_scenario("1m2w", catalog).scenario, catalog, name=name, seat=seat)
    record = Record("id", name, "fake", "box", seat, "creating", 0.0, checkpoint=checkpoint)
    assert str(again(record, replace(plan, scenario=scenario))) == wanted


def test_a_lab_that_another_klab_works_on_is_left_alone(home: Home, catalog: Catalog) -> None:
    with home.lab("plain").lock(), pytest.raises(Conflict, match="another klab"):
        create(home, request_for(PLAIN, catalog), opener())


def test_a_half_destroyed_lab_is_not_revived(home: Home, catalog: Catalog) -> None:
    create(home, request_for(PLAIN, catalog), opener())
    home.lab("plain").update_record(phase="destroying")
    with pytest.raises(Conflict, match="half destroyed"):
        create(home, request_for(PLAIN, catalog), opener())


def test_a_failed_init_brings_phase_and_log(home: Home, catalog: Catalog) -> None:
    says = "klab: boot done\nklab: init failed kubeadm init failed 3 times\nklab| [ERROR Port-6443]: Port is in use\n"
    with pytest.raises(ClusterError) as caught:
        create(home, request_for(FULL, catalog), opener(says=says))
    assert "failed in phase init" in caught.value.message
    assert any("Port is in use" in line for line in caught.value.details)
    assert caught.value.hint


def test_running_out_of_time_names_node_phase_and_log(home: Home, catalog: Catalog, time_is_up: TimeIsUp) -> None:
    says = "klab: cloud-init begin\nklab: boot done\nklab: init begin attempt 1\nthe last line\n"
    machines = opener(says=says, act=lambda _m: time_is_up.event.set())
    with pytest.raises(NotReadyInTime) as caught:
        create(home, request_for(FULL, catalog), machines, deadline=time_is_up)
    assert "cp1 is in phase init" in caught.value.message
    assert any("the last line" in line for line in caught.value.details)
    assert "--timeout" in caught.value.hint


def test_a_machine_whose_console_is_silent_does_not_boot(home: Home, catalog: Catalog, time_is_up: TimeIsUp) -> None:
    class Silent(FakeMachines):
        def consoles(self) -> dict[str, Path]:
            return {name: path.with_suffix(".none") for name, path in super().consoles().items()}

        def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
            time_is_up.event.set()

    with pytest.raises(MachineError, match="does not boot"):
        create(home, request_for(FULL, catalog), lambda *args: Silent(*args), deadline=time_is_up)


class Closed(Scripted):
    """Consoles that cannot be read: links that lead to themselves, since root may read everything."""

    def consoles(self) -> dict[str, Path]:
        found = {name: path.with_suffix(".closed") for name, path in super().consoles().items()}
        for path in found.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_symlink():
                path.symlink_to(path.name)
        return found

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        FakeMachines.up(self, deadline, on_line, nodes)
        if self.act is not None:
            self.act(self)


def test_a_node_whose_console_cannot_be_read_is_asked_whether_it_failed(home: Home, catalog: Catalog) -> None:
    seen: list[Event] = []
    answers = {" ".join(FAILED): (0, "error: no route\ngiving up\n")}
    machines = fake_lab.opener(partial(Closed, says="", act=None), answers=answers)
    with pytest.raises(ClusterError, match=r"failed in phase first boot: klab-node\.service failed") as caught:
        create(home, request_for(FULL, catalog), machines, seen.append)
    assert caught.value.details == ("error: no route", "giving up")
    notes = [event.text for event in seen if event.state == "note"]
    assert [note.partition(":")[0] for note in notes] == ["cp1's cannot be read", "w1's cannot be read"]
    assert "Too many levels of symbolic links" in notes[0]


def test_a_console_that_cannot_be_read_is_not_called_silent(home: Home, catalog: Catalog, time_is_up: TimeIsUp) -> None:
    machines = fake_lab.opener(
        partial(Closed, says="", act=lambda _m: time_is_up.event.set()), answers={" ".join(FAILED): (1, "")}
    )
    with pytest.raises(NotReadyInTime) as caught:
        create(home, request_for(FULL, catalog), machines, deadline=time_is_up)
    assert any("cp1's console cannot be read" in line for line in caught.value.details)


def test_cloud_init_trouble_is_shown(home: Home, catalog: Catalog, time_is_up: TimeIsUp) -> None:
    trouble = "[  9.1] cloud-init[437]: schema.py[ERROR]: users: 1 is not of type 'array'"
    says = f"klab: cloud-init begin\n{trouble}\nlogin:\n"
    machines = opener(says=says, act=lambda _m: time_is_up.event.set())
    with pytest.raises(NotReadyInTime) as caught:
        create(home, request_for(FULL, catalog), machines, deadline=time_is_up)
    assert "phase cloud-init" in caught.value.message
    assert any("is not of type" in line for line in caught.value.details)


def test_a_failing_provider_ends_the_wait_at_once(home: Home, catalog: Catalog) -> None:
    def fail(_machines: Scripted) -> None:
        raise MachineError("no more disk", hint="make room")

    with pytest.raises(MachineError, match="no more disk"):
        create(home, request_for(FULL, catalog), opener(says="", act=fail))


def test_a_full_disk_while_machines_start_is_said_as_such(home: Home, catalog: Catalog) -> None:
    def fail(_machines: Scripted) -> None:
        raise OSError(28, "No space left on device", "/some/log")

    with pytest.raises(HostError, match="this machine refuses: No space left on device") as caught:
        create(home, request_for(PLAIN, catalog), opener(act=fail))
    assert caught.value.details == ("/some/log",)


def test_a_bug_in_the_provider_is_an_error_not_silence(home: Home, catalog: Catalog) -> None:
    def fail(_machines: Scripted) -> None:
        raise ZeroDivisionError

    with pytest.raises(LabError, match="unexpectedly"):
        create(home, request_for(FULL, catalog), opener(says="", act=fail))


def test_a_machine_that_goes_away_is_noticed(home: Home, catalog: Catalog) -> None:
    def go(machines: Scripted) -> None:
        machines.set_state("w1", NodeState.STOPPED)

    with pytest.raises(MachineError, match="w1 is stopped"):
        create(home, request_for(FULL, catalog), opener(says="klab: boot done\n", act=go))


class Crashing(Scripted):
    """The virtual machine of w1 crashes so many times; its node says `says` each time that it runs."""

    def __init__(self, *lab: Any, says: str, times: int, cancelled: threading.Event) -> None:
        super().__init__(*lab, says=says, act=None)
        self.times, self.cancelled = times, cancelled

    def cancel(self) -> None:
        self.cancelled.set()

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        super().up(deadline, on_line, nodes)
        self.starts = 0
        self.set_state("w1", NodeState.CRASHED)
        while self.states()["w1"] == NodeState.CRASHED:  # as Vagrant waits for its address
            if self.cancelled.wait(0.01):
                return
        with self.consoles()["w1"].open("a") as out:
            out.write(WELL)

    def start(self, nodes: Sequence[str]) -> None:
        self.starts += 1
        if self.starts == self.times:
            super().start(nodes)


def crashing(*, says: str, times: int = 1) -> Any:
    return fake_lab.opener(partial(Crashing, says=says, times=times, cancelled=threading.Event()))


def test_a_machine_that_crashed_before_its_node_did_anything_is_started_again(home: Home, catalog: Catalog) -> None:
    seen: list[Event] = []
    create(home, request_for(PLAIN, catalog), crashing(says="", times=2), seen.append)
    assert [(e.node, e.phase) for e in seen if e.state == "retry"] == [("w1", "boot")] * 2
    assert {(e.node, e.phase) for e in seen if e.state == "done"} >= {("w1", "clean")}


def test_a_machine_that_crashes_again_and_again_is_given_up(home: Home, catalog: Catalog) -> None:
    with pytest.raises(MachineError, match="virtual machine of w1 crashed\n") as caught:
        create(home, request_for(PLAIN, catalog), crashing(says="SeaBIOS\n", times=9))
    assert "SeaBIOS" in caught.value.details
    assert "klab destroy -y plain" in caught.value.hint


def test_a_node_that_crashed_during_its_first_boot_is_given_up(home: Home, catalog: Catalog) -> None:
    with pytest.raises(MachineError, match="w1 crashed during its first boot"):
        create(home, request_for(PLAIN, catalog), crashing(says="klab: cloud-init begin\n"))


# Ctrl-C may hit the main thread while it opens a file or a socket, which is then left to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_a_lab_that_create_continues(home: Home, catalog: Catalog) -> None:
    def interrupt(_machines: Scripted) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        create(home, request_for(FULL, catalog), opener(says="", act=interrupt))
    assert home.lab("full").record().phase == "creating"
    with home.lab("full").lock():
        pass


def test_destroy_removes_everything_even_a_half_made_lab(home: Home, catalog: Catalog, time_is_up: TimeIsUp) -> None:
    request = request_for(PLAIN, catalog)
    machines = opener(says="klab: boot done\n", ssh=_no_ssh, act=lambda _m: time_is_up.event.set())
    with pytest.raises(NotReadyInTime):
        create(home, request, machines, deadline=time_is_up)
    folder = home.lab("plain")
    destroy(Lab(home, folder, request.plan, opener()), lambda _line: None)
    assert not folder.path.exists()
    assert home.existing() == []
    assert list(home.labs.iterdir()) == []


def _no_ssh(self: FakeMachines, node: str, *_args: Any, **_kwargs: Any) -> Any:
    raise MachineError(f"{node} does not answer ssh")


def test_secrets_of_a_lab_are_its_owners_alone(home: Home, catalog: Catalog) -> None:
    folder: LabFolder = create(home, request_for(PLAIN, catalog), opener()).folder
    assert folder.path.stat().st_mode & 0o077 == 0


def test_the_record_names_what_the_lab_was_made_of(home: Home, catalog: Catalog) -> None:
    record: Record = create(home, request_for(PLAIN, catalog), opener()).folder.record()
    plan: Plan = request_for(PLAIN, catalog).plan
    assert (record.name, record.provider, record.box, record.seat) == (plan.name, "fake", "box", 0)


# --- images of the scenario's -------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", ["prepared", "full"])
def test_the_images_of_a_scenario_are_on_every_node(
    home: Home, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bootstrap: str
) -> None:
    text = f"version: 1\nname: lesson\ntopology: {{workers: 1}}\nbootstrap: {bootstrap}\nimages: [team/app:1]\n"
    file = write_tar(tmp_path / "app.tar", layout_files([(image(), {CONTAINERD: "docker.io/team/app:1"})]))
    (found,) = Sources(Store(home), print).take([parse_source(str(file))])
    made = machines(tmp_path / "disks", ["cp1", "w1"])
    kind = type("Made", (Scripted, RegistryMachines), {"disks": made.disks, "ran": made.ran})
    # What else a full cluster needs has tests of its own.
    monkeypatch.setattr(module, "ready_steps", lambda _plan: [Step("the API server answers", lambda _context: None)])
    monkeypatch.setattr(module, "apply_step", lambda name, _objects: Step(name, lambda _context: None))
    wanted = request_for(text, catalog)
    wanted = replace(wanted, request=replace(wanted.request, images=[LabImage.of(found)]))
    opened = fake_lab.opener(partial(kind, says=WELL, act=None))
    create(home, wanted, opened)
    assert [(node, act) for node, act in made.ran if act == "place"] != []
    assert {node for node, act in made.ran if act == "place"} == {"cp1", "w1"}
    made.ran.clear()
    create(home, wanted, opened)
    assert {act for _, act in made.ran} == {"look"}


def test_a_lab_with_other_images_is_another_lab(home: Home, catalog: Catalog) -> None:
    text = PLAIN.replace("bootstrap: none", "bootstrap: prepared")
    create(home, request_for(text, catalog), opener())
    with pytest.raises(Conflict) as caught:
        create(home, request_for(text + "images: [redis]\n", catalog), opener())
    assert "images: () -> ('docker.io/library/redis:latest',)" in caught.value.details
