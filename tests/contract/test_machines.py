"""The contract of `Machines`, for the fake and for libvirt alike. The tests follow one lab's life, in order."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from contract.consoles import printed
from contract.labs import Lab, with_another_worker

from lab.cluster.wait.console_file import ConsoleFile, rotated
from lab.errors import MachineError, NotFound, ProgramError, ProgramTimeout
from lab.machines.fake.machines import BOOT_ID
from lab.machines.protocol import Machines, NodeState
from lab.machines.vagrant.provider import forget_in_vagrant
from lab.waiting import Deadline, poll

pytestmark = pytest.mark.incremental

LIMIT = 300
LINES = 25_000


def all_in(machines: Machines, state: NodeState) -> bool:
    return set(machines.states().values()) == {state}


def boots(machines: Machines, *nodes: str) -> dict[str, str]:
    """What tells the present boot of each of these machines from any other; waits until it answers."""

    def ask(node: str) -> str | None:
        with contextlib.suppress(MachineError, ProgramTimeout):
            return machines.ssh(node, ["cat", BOOT_ID], timeout=60).stdout
        return None

    deadline = Deadline.after(LIMIT)
    found = {node: poll(lambda n=node: ask(n), deadline) for node in nodes}
    assert all(found.values()), found
    return {node: boot for node, boot in found.items() if boot}


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
    for node in ("cp1", "w1"):
        assert printed(lab, node)


@pytest.mark.parametrize("lab", ["libvirt"], indirect=True)
def test_what_a_talkative_guest_prints_takes_limited_space_and_is_followed(lab: Lab) -> None:
    machines = lab.open()
    file = machines.consoles()["w1"]
    reader, said = ConsoleFile(file), b""
    reader.end()
    # virtlogd takes another file at 2 MiB.
    machines.ssh("w1", ["sh", "-c", f"seq 1 {LINES} | sed 's/$/ {'x' * 90}/' > /dev/ttyS0"], timeout=LIMIT)
    assert poll(lambda: rotated(file.resolve()).exists(), Deadline.after(60))
    with contextlib.suppress(PermissionError):  # the other file is root's
        for piece in reader.read(1 << 30):
            said += piece.data
    numbers = [int(line.split()[0]) for line in said.splitlines()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == LINES if os.geteuid() == 0 else len(said) > 1 << 20
    assert printed(lab, "cp1"), "the others' are as they were"
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            file.read_bytes()
    assert machines.stop(["w1"], Deadline.after(LIMIT)) == []
    machines.start(["w1"])
    assert printed(lab, "w1"), "a start begins it afresh, and it is the person's again"


def test_seeds_are_dropped_and_machines_stay_manageable(lab: Lab) -> None:
    machines = lab.open()
    assert any("seed" in line for line in machines.leftovers())
    machines.drop_seeds()
    machines.drop_seeds()
    assert not [line for line in machines.leftovers() if "seed" in line]
    assert not list(lab.folder.path.glob("**/*.iso"))
    assert all_in(machines, NodeState.RUNNING)
    assert machines.ssh("cp1", ["hostname"], timeout=60).stdout == "cp1\n"


def test_a_paused_machine_is_shut_down_too(lab: Lab) -> None:
    machines = lab.open()
    lab.outside.pause(lab, "w1")
    assert machines.stop(["w1"], Deadline.after(LIMIT)) == []
    assert machines.states() == {"cp1": NodeState.RUNNING, "w1": NodeState.STOPPED}


def test_a_machine_that_is_off_or_paused_comes_back_without_its_seed(lab: Lab) -> None:
    lab.outside.pause(lab, "cp1")
    machines = lab.open()
    assert machines.states() == {"cp1": NodeState.PAUSED, "w1": NodeState.STOPPED}
    machines.up(Deadline.after(LIMIT), print)
    assert all_in(machines, NodeState.RUNNING)
    assert machines.ssh("w1", ["hostname"], timeout=60).stdout == "w1\n"
    assert printed(lab, "cp1"), "that of a machine that was only paused goes on"
    assert printed(lab, "w1"), "that of a machine that was off begins afresh"


def test_stop_and_start(lab: Lab) -> None:
    machines = lab.open()
    before = boots(machines, "cp1", "w1")
    assert machines.stop(["w1"], Deadline.after(LIMIT)) == []
    assert machines.states() == {"cp1": NodeState.RUNNING, "w1": NodeState.STOPPED}
    assert machines.stop(["w1"], Deadline.after(LIMIT)) == [], "one that is off is no late one"
    machines.start(["cp1", "w1"])
    assert all_in(machines, NodeState.RUNNING)
    after = boots(machines, "cp1", "w1")
    assert after["cp1"] == before["cp1"]
    assert after["w1"] != before["w1"]
    assert printed(lab, "cp1")
    assert printed(lab, "w1")


def test_start_of_a_paused_machine_resumes_it(lab: Lab) -> None:
    machines = lab.open()
    before = boots(machines, "cp1")
    lab.outside.pause(lab, "cp1")
    machines.start(["cp1"])
    assert all_in(machines, NodeState.RUNNING)
    assert boots(machines, "cp1") == before


def test_a_guest_that_does_not_shut_down_is_named_until_its_power_is_cut(lab: Lab) -> None:
    machines = lab.open()
    before = boots(machines, "cp1", "w1")
    machines.ssh("w1", ["killall", "acpid"], timeout=60)  # its guest does not hear the power button
    assert machines.stop(["w1"], Deadline.after(5)) == ["w1"]
    assert all_in(machines, NodeState.RUNNING)
    machines.power_off(["w1"])
    machines.power_off(["w1"])
    assert machines.states() == {"cp1": NodeState.RUNNING, "w1": NodeState.STOPPED}
    machines.start(["w1"])
    after = boots(machines, "cp1", "w1")
    assert after["cp1"] == before["cp1"]
    assert after["w1"] != before["w1"]


def test_a_machine_that_crashed_is_told_from_one_that_is_off_and_starts_again(lab: Lab) -> None:
    machines = lab.open()
    before = boots(machines, "cp1", "w1")
    lab.outside.crash(lab, "w1")
    assert machines.states() == {"cp1": NodeState.RUNNING, "w1": NodeState.CRASHED}
    machines.power_off(["w1"])
    machines.start(["w1"])
    assert all_in(machines, NodeState.RUNNING)
    after = boots(machines, "cp1", "w1")
    assert after["cp1"] == before["cp1"]
    assert after["w1"] != before["w1"]


def test_a_node_comes_and_goes_without_the_others_taking_notice(lab: Lab) -> None:
    before = boots(lab.open(), "cp1", "w1")
    grown = with_another_worker(lab)
    machines = grown.open()
    with pytest.raises(MachineError) as caught:
        machines.start(["w2"])
    assert "klab node replace" in caught.value.hint
    machines.up(Deadline.after(LIMIT), print, nodes=["w2"])
    assert all_in(machines, NodeState.RUNNING)
    assert machines.ssh("w2", ["hostname"], timeout=60).stdout == "w2\n"
    if lab.outside.daemon:
        # The network was made for two nodes and has run since; its third has its fixed address all the same.
        given = {host.name: f"inet {host.address}/" for host in lab.outside.management_hosts(lab)}
        assert given["w2"] in machines.ssh("w2", ["ip", "-4", "addr"], timeout=60).stdout
        assert given["cp1"] in machines.ssh("cp1", ["ip", "-4", "addr"], timeout=60).stdout
    machines.remove("w2", print)
    machines.remove("w2", print)
    assert machines.states() == {"w2": NodeState.ABSENT, "cp1": NodeState.RUNNING, "w1": NodeState.RUNNING}
    assert not [line for line in machines.leftovers() if "w2" in line]
    assert not machines.consoles()["w2"].exists()
    assert boots(lab.open(), "cp1", "w1") == before
    if lab.outside.daemon:
        assert {host.name for host in lab.outside.management_hosts(lab)} == {"cp1", "w1"}
        assert not (lab.folder.path / ".vagrant" / "machines" / "w2").exists()
        assert "w2" not in (lab.folder.path / "Vagrantfile").read_text()


def test_a_node_that_the_lab_does_not_have(lab: Lab) -> None:
    machines = lab.open()
    for act in (
        lambda: machines.up(Deadline.after(LIMIT), print, nodes=["w9"]),
        lambda: machines.start(["w9"]),
        lambda: machines.stop(["w9"], Deadline.after(LIMIT)),
        lambda: machines.power_off(["w9"]),
        lambda: machines.remove("w9", print),
    ):
        with pytest.raises(NotFound) as caught:
            act()
        assert "w1" in caught.value.hint


@pytest.mark.parametrize("lab", ["libvirt"], indirect=True)
def test_guests_share_one_slowed_clock(lab: Lab) -> None:
    machines = lab.open()
    record = lab.folder.record()
    for node in machines.states():  # w1 was started again later than cp1
        shown = int(machines.ssh(node, ["date", "+%s"], timeout=60).stdout)
        expected = record.guest_clock.guest(time.time())
        assert abs(shown - expected) < 10, node


def test_destroy_leaves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = lab.open()
    machines.start(list(machines.states()))
    seen: list[bool] = []
    if lab.outside.vagrant:
        # Of one that boots Vagrant would ask the address again and again, for a minute in a lab of three.
        def look(*words: Any) -> None:
            seen.append(not any(state.on for state in machines.states().values()))
            forget_in_vagrant(*words)

        monkeypatch.setattr("lab.machines.libvirt.machines.forget_in_vagrant", look)
    machines.destroy(print)
    assert seen == ([True] if lab.outside.vagrant else [])
    assert machines.leftovers() == []
    machines.destroy(print)
    assert not Path(lab.folder.path / ".vagrant").exists()
    assert all_in(machines, NodeState.ABSENT)
