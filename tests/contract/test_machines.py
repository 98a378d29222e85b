"""The contract of `Machines`, for the fake and for libvirt alike. The tests follow one lab's life, in order."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from contract.labs import Lab

from lab.errors import MachineError, NotFound, ProgramError
from lab.machines.fake import FakeMachines
from lab.machines.protocol import Machines, NodeState
from lab.waiting import Deadline, poll

LIMIT = 300


def all_in(machines: Machines, state: NodeState) -> bool:
    return set(machines.states().values()) == {state}


def power_off(lab: Lab, node: str) -> None:
    """Cut a node's power behind klab's back."""
    machines = lab.open()
    if isinstance(machines, FakeMachines):
        machines.set_state(node, NodeState.STOPPED)
        return
    _domain(lab, node).destroy()


def pause(lab: Lab, node: str) -> None:
    machines = lab.open()
    if isinstance(machines, FakeMachines):
        machines.set_state(node, NodeState.PAUSED)
        return
    _domain(lab, node).suspend()


def _domain(lab: Lab, node: str):  # type: ignore[no-untyped-def]
    from lab.machines.connection import connect

    found = lab.plan.node(node)
    assert found is not None
    return connect().lookupByUUIDString(found.uuid)


def test_nothing_is_there_before_up(lab: Lab) -> None:
    machines = lab.open()
    assert all_in(machines, NodeState.ABSENT)
    with pytest.raises(MachineError):
        machines.ssh("cp1", ["true"], timeout=60)


def test_up_makes_every_machine(lab: Lab) -> None:
    lines: list[str] = []
    machines = lab.open()
    machines.up(Deadline.after(LIMIT), lines.append)
    assert lines
    assert all_in(machines, NodeState.RUNNING)
    assert all_in(lab.open(), NodeState.RUNNING), "another process sees the same"


def test_up_again_changes_nothing(lab: Lab) -> None:
    machines = lab.open()
    before = {node: file.stat().st_size for node, file in machines.consoles().items()}
    machines.up(Deadline.after(LIMIT), print)
    assert {node: file.stat().st_size for node, file in machines.consoles().items()} == before


def test_ssh_hands_words_over_unchanged(lab: Lab) -> None:
    machines = lab.open()
    assert machines.ssh("cp1", ["hostname"], timeout=60).stdout == "cp1\n"
    assert machines.ssh("w1", ["hostname"], timeout=60).stdout == "w1\n"
    assert machines.ssh("cp1", ["echo", "a  b", "$HOME", "it's"], timeout=60).stdout == "a  b $HOME it's\n"
    assert machines.ssh("cp1", ["cat"], timeout=60, stdin="from here\n").stdout == "from here\n"


def test_ssh_says_what_failed(lab: Lab) -> None:
    machines = lab.open()
    assert machines.ssh("cp1", ["false"], timeout=60, check=False).code == 1
    with pytest.raises(ProgramError):
        machines.ssh("cp1", ["false"], timeout=60)
    with pytest.raises(NotFound) as caught:
        machines.ssh("w9", ["true"], timeout=60)
    assert "w1" in caught.value.hint


def test_ssh_argv_is_for_a_terminal(lab: Lab) -> None:
    node = lab.plan.nodes[0]
    argv = lab.open().ssh_argv("cp1", ["uptime"])
    assert argv[0] == "ssh"
    assert f"vagrant@{node.address}" in argv
    assert argv[-1] == "uptime"


def test_consoles_can_be_read_while_machines_run(lab: Lab) -> None:
    for node, file in lab.open().consoles().items():
        assert poll(lambda n=node, f=file: f"{n} is up" in f.read_text(errors="replace"), Deadline.after(60))


def test_seeds_are_dropped_and_machines_stay_manageable(lab: Lab) -> None:
    machines = lab.open()
    assert any("seed" in line for line in machines.leftovers())
    machines.drop_seeds()
    machines.drop_seeds()
    assert not [line for line in machines.leftovers() if "seed" in line]
    assert not list(lab.folder.path.glob("**/*.iso"))
    assert all_in(machines, NodeState.RUNNING)
    assert machines.ssh("cp1", ["hostname"], timeout=60).stdout == "cp1\n"


def test_a_machine_without_power_or_paused_comes_back_without_its_seed(lab: Lab) -> None:
    power_off(lab, "w1")
    pause(lab, "cp1")
    machines = lab.open()
    assert machines.states() == {"cp1": NodeState.PAUSED, "w1": NodeState.STOPPED}
    machines.up(Deadline.after(LIMIT), print)
    assert all_in(machines, NodeState.RUNNING)
    assert machines.ssh("w1", ["hostname"], timeout=60).stdout == "w1\n"


def test_guests_share_one_slowed_clock(lab: Lab) -> None:
    machines = lab.open()
    if isinstance(machines, FakeMachines):
        pytest.skip("a fake machine has no clock")
    from lab.machines.emulator import dilated_time

    record = lab.folder.record()
    for node in machines.states():  # w1 was started again later than cp1
        shown = int(machines.ssh(node, ["date", "+%s"], timeout=60).stdout)
        expected = dilated_time(time.time(), record.epoch, record.dilation)
        assert abs(shown - expected) < 10, node


def test_destroy_leaves_nothing(lab: Lab) -> None:
    machines = lab.open()
    machines.destroy(print)
    assert machines.leftovers() == []
    machines.destroy(print)
    assert not Path(lab.folder.path / ".vagrant").exists()
    assert all_in(machines, NodeState.ABSENT)
