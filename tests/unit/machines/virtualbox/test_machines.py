"""The machines of a lab on VirtualBox, over the stand-in for VBoxManage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.vbox_lab import VirtualBoxLab

from lab.errors import HostError, MachineError, NotFound, ProgramError
from lab.machines.protocol import NodeState, needed_disk_transfer
from lab.machines.virtualbox.provider import VirtualBoxProvider
from lab.waiting import Deadline

OpenLab = Callable[..., VirtualBoxLab]


@pytest.mark.parametrize(
    "word", ["running", "paused", "saved", "poweroff", "aborted", "aborted-saved", "gurumeditation"]
)
def test_start_from_whatever_state(open_lab: OpenLab, word: str) -> None:
    lab = open_lab(cp1=word, w1="poweroff")
    lab.machines.start(["cp1"])
    assert lab.states == {"cp1": "running", "w1": "poweroff"}


def test_start_of_a_machine_that_does_not_exist_starts_none(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="poweroff")
    with pytest.raises(MachineError, match="no machine to start for w1") as caught:
        lab.machines.start(["cp1", "w1"])
    assert "klab node replace" in caught.value.hint
    assert lab.states["cp1"] == "poweroff"


def test_a_machine_that_cannot_be_started_is_named(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="poweroff")
    lab.programs.broken = {"startvm"}
    with pytest.raises(MachineError, match="cp1 cannot be started") as caught:
        lab.machines.start(["cp1"])
    assert any("startvm failed" in line for line in caught.value.details)


def test_stop_wakes_the_paused_and_presses_until_all_are_off(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="paused", w1="saved")
    lab.virtualbox.change(deaf=3)
    assert lab.machines.stop(["cp1", "w1"], Deadline.after(60)) == []
    presses = [words[1] for words in lab.virtualbox.calls if words[-1] == "acpipowerbutton"]
    assert presses[:2] == [lab.name("cp1"), lab.name("w1")]
    assert len(presses) >= 5, "three were not heard"
    assert set(lab.machines.states().values()) == {NodeState.STOPPED}


def test_stop_names_those_that_still_run_when_time_is_up(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="poweroff", w1="running")
    lab.virtualbox.change(deaf=1_000_000)
    assert lab.machines.stop(["cp1", "w1"], Deadline.after(0)) == ["w1"]


@pytest.mark.parametrize(
    "word", ["running", "paused", "saved", "poweroff", "aborted", "aborted-saved", "gurumeditation"]
)
def test_power_off_from_whatever_state(open_lab: OpenLab, word: str) -> None:
    lab = open_lab(cp1=word)
    lab.machines.power_off(["cp1", "w1"])
    lab.machines.power_off(["cp1", "w1"])
    # "aborted" is off already: VirtualBox keeps reporting why.
    stays = NodeState.CRASHED if word == "aborted" else NodeState.STOPPED
    assert lab.machines.states() == {"cp1": stays, "w1": NodeState.ABSENT}


def test_power_that_cannot_be_cut_is_no_success(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="running")
    lab.programs.broken = {"poweroff"}
    with pytest.raises(ProgramError, match="VBoxManage failed"):
        lab.machines.power_off(["cp1"])


def test_remove_takes_one_machine_with_all_that_is_its_and_nothing_else(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="running", w1="running")
    folder = lab.folder.path
    for node in ("cp1", "w1"):
        (folder / ".vagrant" / "machines" / node).mkdir(parents=True)
        lab.machines.consoles()[node].touch()
    (folder / "Vagrantfile").touch()
    lab.machines.remove("w1", print)
    lab.machines.remove("w1", print)
    assert lab.programs.vagrant == [["destroy", "-f", "w1"]]
    assert lab.states == {"cp1": "running"}
    text = (folder / "Vagrantfile").read_text()
    assert [f"config.vm.define '{node}'" in text for node in ("cp1", "w1")] == [True, False]
    assert [path.name for path in (folder / ".vagrant" / "machines").iterdir()] == ["cp1"]
    assert [path.name for path in folder.glob("*/*") if path.is_file()] == ["console-cp1.log", "cp1.iso"]


def test_the_seeds_go_and_their_drives_stay(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="running", w1="running")
    lab.machines.drop_seeds()
    lab.machines.drop_seeds()
    assert [machine["slots"]["1"]["medium"] for machine in lab.virtualbox.machines.values()] == ["", ""]
    assert not lab.folder.seeds.exists()


def test_a_machine_that_cannot_be_removed_is_named(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="running", w1="running")
    lab.programs.broken = {"unregistervm"}
    with pytest.raises(MachineError, match="some parts of w1 could not be removed") as caught:
        lab.machines.remove("w1", print)
    assert any("unregistervm failed" in line for line in caught.value.details)
    lab.programs.broken = set()
    lab.machines.remove("w1", print)
    assert list(lab.states) == ["cp1"]


def test_a_machine_that_stays_although_nothing_failed_is_named(open_lab: OpenLab) -> None:
    lab = open_lab(w1="poweroff")
    lab.programs.ignored = {"unregistervm"}
    with pytest.raises(MachineError, match="some parts of w1") as caught:
        lab.machines.remove("w1", print)
    assert caught.value.details == ("machine klab-demo_w1",)


def test_up_of_one_node_names_it_to_vagrant(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="running")
    lab.machines.up(Deadline.after(60), print, nodes=["w1"])
    lab.machines.up(Deadline.after(60), print, nodes=[])
    assert lab.programs.vagrant == [["up", "w1", "--provider", "virtualbox", "--no-provision", "--no-destroy-on-error"]]
    assert "define 'cp1'" in lab.folder.vagrantfile.read_text()


@pytest.mark.parametrize("verb", ["start", "power_off", "remove"])
def test_a_node_that_the_lab_does_not_have(open_lab: OpenLab, verb: str) -> None:
    lab = open_lab(cp1="running")
    arguments: tuple[object, ...] = ("w9", print) if verb == "remove" else (["w9"],)
    with pytest.raises(NotFound):
        getattr(lab.machines, verb)(*arguments)


def test_disks_do_not_leave_the_host_yet(open_lab: OpenLab) -> None:
    lab = open_lab(cp1="poweroff")
    assert lab.machines.disk_transfer() is None
    assert not VirtualBoxProvider.features.disk_transfer
    with pytest.raises(HostError, match="bundles are made on libvirt only") as caught:
        needed_disk_transfer(lab.machines)
    assert "klab snapshot" in caught.value.hint
