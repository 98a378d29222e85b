"""Reading VBoxManage. Its output here is transcribed from the VirtualBox 7.0 manual (chapter 8) and
src/VBox/Frontends/VBoxManage/VBoxManageInfo.cpp; VirtualBox cannot run where klab is made, so none
of it was recorded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.vboxmanage import INFO

from lab import process
from lab.errors import HostError, MachineError, NotFound, ProgramError
from lab.machines.protocol import NodeState, needed_disk_transfer
from lab.machines.vagrant import command as vagrant
from lab.machines.vagrant import provider
from lab.machines.virtualbox import machines as virtualbox
from lab.machines.virtualbox.provider import VirtualBoxProvider
from lab.plan.decide import decide
from lab.process import Completed
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import Home, Record
from lab.waiting import Deadline

RECORD = Record(
    id="cb7b241c-70ce-456d-a4d8-2e6b37ed0cff",
    name="demo",
    provider="virtualbox",
    box="box",
    seat=0,
    phase="ready",
    created=1.0,
)


class VBoxManage:
    """In VBoxManage's and Vagrant's place. States, commands and refusals are those of the manual, chapter 8."""

    def __init__(self, states: dict[str, str]) -> None:
        self.states = {f"klab-demo_{node}": word for node, word in states.items()}
        self.deaf = 0  # how many presses of the power button are lost
        self.presses: list[str] = []
        self.vagrant: list[list[str]] = []
        self.broken: set[str] = set()  # what fails whatever the state is
        self.ignored: set[str] = set()  # what does nothing and says that it went well

    def run(self, argv: Sequence[str], *, check: bool = True, **_options: object) -> Completed:
        program, *words = argv
        done = Completed(tuple(argv), *(self._vagrant if program == "vagrant" else self._answer)(words))
        if check and done.code != 0:
            raise process.failed(done)
        return done

    def _vagrant(self, words: list[str]) -> tuple[int, str, str]:
        self.vagrant.append(words)
        return 0, "", ""

    def _answer(self, words: list[str]) -> tuple[int, str, str]:
        if self.broken & set(words):
            return 1, "", f"VBoxManage: error: {words[0]} failed"
        if self.ignored & set(words):
            return 0, "", ""
        match words:
            case ["list", "vms"]:
                return 0, "".join(f'"{name}" {{{_uuid(name)}}}\n' for name in self.states), ""
            case ["showvminfo", uuid, "--machinereadable"]:
                (name,) = (name for name in self.states if _uuid(name) == uuid)
                return 0, INFO.replace("{state}", self.states[name]).replace("klab-demo_cp1", name), ""
            case ["startvm", name, "--type", "headless"]:
                if self.states[name] in {"running", "paused", "gurumeditation"}:
                    return 1, "", f"VBoxManage: error: The machine '{name}' is already locked by a session"
                self.states[name] = "running"
            case ["discardstate", name]:
                if "saved" not in self.states[name]:
                    return 1, "", "VBoxManage: error: The machine has no saved state"
                self.states[name] = "poweroff"
            case ["unregistervm", name, "--delete"]:
                if self.states[name] in {"running", "paused", "gurumeditation"}:
                    return 1, "", f"VBoxManage: error: Cannot unregister the machine '{name}' while it is locked"
                del self.states[name]
            case ["controlvm", name, verb]:
                return self._control(name, verb)
            case _:
                return 2, "", f"VBoxManage: error: unknown command {words}"
        return 0, "", ""

    def _control(self, name: str, verb: str) -> tuple[int, str, str]:
        state = self.states[name]
        if state not in {"running", "paused", "gurumeditation"}:
            return 1, "", f"VBoxManage: error: Machine '{name}' is not currently running."
        match verb:
            case "resume" if state == "paused":
                self.states[name] = "running"
            case "poweroff":
                self.states[name] = "poweroff"
            case "acpipowerbutton" if state == "running":
                self.presses.append(name)
                if len(self.presses) > self.deaf:
                    self.states[name] = "poweroff"
            case _:
                return 1, "", f"VBoxManage: error: Invalid machine state: {state}"
        return 0, "", ""


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


Open = Callable[..., tuple[virtualbox.VirtualBoxMachines, VBoxManage]]


@pytest.fixture
def open_machines(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Machines in the given states: `open_machines(cp1="running", w1="saved")`."""

    def make(**states: str) -> tuple[virtualbox.VirtualBoxMachines, VBoxManage]:
        manage = VBoxManage(states)
        monkeypatch.setattr(process, "run", manage.run)
        monkeypatch.setattr(vagrant.shutil, "which", lambda _program: "/usr/bin/vagrant")
        monkeypatch.setattr(provider, "OFF_POLL_SECONDS", 0.01)
        monkeypatch.setattr(provider, "PRESS_SECONDS", 0.0)
        home = Home(tmp_path)
        home.lab("demo").logs.mkdir(parents=True)
        plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)
        return virtualbox.VirtualBoxMachines(home, home.lab("demo"), plan, RECORD, None), manage

    return make


@pytest.mark.parametrize(
    "word", ["running", "paused", "saved", "poweroff", "aborted", "aborted-saved", "gurumeditation"]
)
def test_start_from_whatever_state(open_machines: Open, word: str) -> None:
    machines, manage = open_machines(cp1=word, w1="poweroff")
    machines.start(["cp1"])
    assert manage.states == {"klab-demo_cp1": "running", "klab-demo_w1": "poweroff"}


def test_start_of_a_machine_that_does_not_exist_starts_none(open_machines: Open) -> None:
    machines, manage = open_machines(cp1="poweroff")
    with pytest.raises(MachineError, match="no machine to start for w1") as caught:
        machines.start(["cp1", "w1"])
    assert "klab node replace" in caught.value.hint
    assert manage.states["klab-demo_cp1"] == "poweroff"


def test_a_machine_that_cannot_be_started_is_named(open_machines: Open) -> None:
    machines, manage = open_machines(cp1="poweroff")
    manage.broken = {"startvm"}
    with pytest.raises(MachineError, match="cp1 cannot be started") as caught:
        machines.start(["cp1"])
    assert any("startvm failed" in line for line in caught.value.details)


def test_stop_wakes_the_paused_and_presses_until_all_are_off(open_machines: Open) -> None:
    machines, manage = open_machines(cp1="paused", w1="saved")
    manage.deaf = 3
    assert machines.stop(["cp1", "w1"], Deadline.after(60)) == []
    assert manage.presses[:2] == ["klab-demo_cp1", "klab-demo_w1"]
    assert set(machines.states().values()) == {NodeState.STOPPED}


def test_stop_names_those_that_still_run_when_time_is_up(open_machines: Open) -> None:
    machines, manage = open_machines(cp1="poweroff", w1="running")
    manage.deaf = 1_000_000
    assert machines.stop(["cp1", "w1"], Deadline.after(0)) == ["w1"]


@pytest.mark.parametrize(
    "word", ["running", "paused", "saved", "poweroff", "aborted", "aborted-saved", "gurumeditation"]
)
def test_power_off_from_whatever_state(open_machines: Open, word: str) -> None:
    machines, _ = open_machines(cp1=word)
    machines.power_off(["cp1", "w1"])
    machines.power_off(["cp1", "w1"])
    # "aborted" is off already: VirtualBox keeps reporting why.
    stays = NodeState.CRASHED if word == "aborted" else NodeState.STOPPED
    assert machines.states() == {"cp1": stays, "w1": NodeState.ABSENT}


def test_power_that_cannot_be_cut_is_no_success(open_machines: Open) -> None:
    machines, manage = open_machines(cp1="running")
    manage.broken = {"poweroff"}
    with pytest.raises(ProgramError, match="VBoxManage failed"):
        machines.power_off(["cp1"])


def test_remove_takes_one_machine_with_all_that_is_its_and_nothing_else(open_machines: Open, tmp_path: Path) -> None:
    machines, manage = open_machines(cp1="running", w1="running")
    folder = tmp_path / "labs" / "demo"
    for node in ("cp1", "w1"):
        (folder / ".vagrant" / "machines" / node).mkdir(parents=True)
        machines.consoles()[node].touch()
    (folder / "Vagrantfile").touch()
    machines.remove("w1", print)
    machines.remove("w1", print)
    assert manage.vagrant == [["destroy", "-f", "w1"]]
    assert manage.states == {"klab-demo_cp1": "running"}
    text = (folder / "Vagrantfile").read_text()
    assert [f"config.vm.define '{node}'" in text for node in ("cp1", "w1")] == [True, False]
    assert [path.name for path in (folder / ".vagrant" / "machines").iterdir()] == ["cp1"]
    assert [path.name for path in folder.glob("logs/*")] == ["console-cp1.log"]


def test_a_machine_that_cannot_be_removed_is_named(open_machines: Open) -> None:
    machines, manage = open_machines(cp1="running", w1="running")
    manage.broken = {"unregistervm"}
    with pytest.raises(MachineError, match="some parts of w1 could not be removed") as caught:
        machines.remove("w1", print)
    assert any("unregistervm failed" in line for line in caught.value.details)
    manage.broken = set()
    machines.remove("w1", print)
    assert list(manage.states) == ["klab-demo_cp1"]


def test_a_machine_that_stays_although_nothing_failed_is_named(open_machines: Open) -> None:
    machines, manage = open_machines(w1="poweroff")
    manage.ignored = {"unregistervm"}
    with pytest.raises(MachineError, match="some parts of w1") as caught:
        machines.remove("w1", print)
    assert caught.value.details == ("machine klab-demo_w1",)


def test_up_of_one_node_names_it_to_vagrant(open_machines: Open, tmp_path: Path) -> None:
    machines, manage = open_machines(cp1="running")
    machines.up(Deadline.after(60), print, nodes=["w1"])
    machines.up(Deadline.after(60), print, nodes=[])
    assert manage.vagrant == [["up", "w1", "--provider", "virtualbox", "--no-provision", "--no-destroy-on-error"]]
    assert "define 'cp1'" in (tmp_path / "labs" / "demo" / "Vagrantfile").read_text()


@pytest.mark.parametrize("verb", ["start", "power_off", "remove"])
def test_a_node_that_the_lab_does_not_have(open_machines: Open, verb: str) -> None:
    machines, _ = open_machines(cp1="running")
    arguments: tuple[object, ...] = ("w9", print) if verb == "remove" else (["w9"],)
    with pytest.raises(NotFound):
        getattr(machines, verb)(*arguments)


def test_disks_do_not_leave_the_host_yet(open_machines: Open) -> None:
    machines, _ = open_machines(cp1="poweroff")
    assert machines.disk_transfer() is None
    assert not VirtualBoxProvider.features.disk_transfer
    with pytest.raises(HostError, match="bundles are made on libvirt only") as caught:
        needed_disk_transfer(machines)
    assert "klab snapshot" in caught.value.hint
