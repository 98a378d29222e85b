"""What a person reads when `vagrant up` fails. The texts are transcribed from Vagrant 2.3.4's
templates/locales/en.yml and vagrant-libvirt 0.11.2's locales/en.yml; those marked were seen here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import pytest

from lab.errors import Conflict, HostError, LabError, MachineError, ProgramTimeout
from lab.machines.protocol import NodeState
from lab.machines.vagrant.failures import explain, vagrant_up
from lab.process import Completed
from lab.waiting import Deadline

CASES = [
    (
        "Timed out while waiting for the machine to boot. This means that\nVagrant was unable to communicate",
        MachineError,
        "does not boot",
        "klab logs",
    ),
    (
        "The provider 'libvirt' could not be found, but was requested to\nback the machine",
        HostError,
        "plugin",
        "apt-get",
    ),
    (
        "Error while connecting to Libvirt: Failed to connect socket to '/var/run/libvirt/libvirt-sock': "
        "Permission denied",
        HostError,
        "does not let this user in",
        "libvirt",
    ),
    (
        "Error while connecting to Libvirt: authentication unavailable: no polkit agent available to authenticate",
        HostError,
        "does not let this user in",
        "libvirt",
    ),
    (
        "There was an error talking to Libvirt. The error message is shown\nbelow:\n\nCall to virDomainCreateWithFlags "
        "failed: Cannot access storage file '/root-only/x.img' (as uid:64055, gid:64055): Permission denied",
        HostError,
        "a file of the lab's is closed to libvirt",
        "namei -l /root-only/x.img",
    ),
    (
        "Call to virDomainCreateWithFlags failed: Failed to connect socket to '/var/run/libvirt/virtlogd-sock': "
        "Permission denied",
        HostError,
        "virtlogd does not answer",
        "restart virtlogd",
    ),
    (
        "vagrant@192.168.56.11: Permission denied (publickey).",
        HostError,
        "refuses the lab's ssh key",
        "klab node replace",
    ),
    (
        "Error while connecting to Libvirt: Failed to connect socket to '/var/run/libvirt/libvirt-sock': "
        "No such file or directory",
        HostError,
        "does not answer",
        "doctor",
    ),
    (  # seen
        "Name `klab-kill_cp1` of domain about to create is already taken. Please try to run\n`vagrant up` again.",
        Conflict,
        "has a name",
        "--name",
    ),
    (
        "operation failed: domain 'x' already exists with uuid cd0e7372; domain 'x' is already defined with uuid",
        Conflict,
        "has a name",
        "virsh",
    ),
    (
        "internal error: Network is already in use by interface virbr0",
        Conflict,
        "network",
        "virsh",
    ),  # seen, in libvirt-python
    ("qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory", HostError, "memory", "klab plan"),
    ("write error: No space left on device", HostError, "disk is full", "doctor"),
    ("something nobody has seen before", MachineError, "exit code 1", "create again"),
]


@pytest.mark.parametrize(("text", "kind", "message", "hint"), CASES)
def test_each_failure_is_named_with_a_way_out(text: str, kind: type[LabError], message: str, hint: str) -> None:
    error = explain(Completed(("vagrant", "up"), 1, "==> cp1: Starting domain.\n", text), cancelled=False)
    assert type(error) is kind
    assert message in error.message
    assert hint in error.hint
    assert text.splitlines()[-1] in error.details


def test_what_was_printed_before_is_no_cause() -> None:
    """Progress on standard output may hold any word; the cause stands on standard error."""
    error = explain(Completed(("vagrant",), 1, "No space left on device\n", "a plugin crashed"), cancelled=False)
    assert "exit code 1" in error.message


def test_a_stop_that_was_asked_for_is_no_failure_of_vagrants() -> None:
    error = explain(Completed(("vagrant",), -15, "", "terminated"), cancelled=True)
    assert "stopped" in error.message


class Scripted:
    """A Vagrant whose `up` ends each time with the next of the given exit codes; None: it does not end."""

    says = "something"

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)
        self.names: list[Sequence[str]] = []

    def up(self, provider: str, timeout: float, on_line: Callable[[str], None], names: Sequence[str]) -> Completed:
        assert timeout > 0
        self.names.append(names)
        code = self.codes.pop(0)
        if code is None:
            raise ProgramTimeout("vagrant did not end", details=["==> w1: Waiting for machine to boot"])
        return Completed(("vagrant", "up"), code, "", self.says)


def up(
    vagrant: Scripted, *, cancelled: bool = False, mends: bool = False, state: NodeState = NodeState.RUNNING
) -> None:
    vagrant_up(
        vagrant,  # type: ignore[arg-type]
        "libvirt",
        Deadline.after(0),
        print,
        names=["w1"],
        cancelled=lambda: cancelled,
        states=lambda: {"w1": state},
        mend=lambda: mends,
    )


def test_what_can_be_mended_is_tried_once_more() -> None:
    vagrant = Scripted(1, 0)
    up(vagrant, mends=True)
    assert vagrant.names == [["w1"], ["w1"]]


@pytest.mark.parametrize(("state", "tries"), [(NodeState.RUNNING, 2), (NodeState.CRASHED, 1)])
def test_a_machine_that_crashed_and_runs_again_is_waited_for_again(state: NodeState, tries: int) -> None:
    vagrant = Scripted(1, 0)
    vagrant.says = "The guest machine entered an invalid state while waiting for it\nto boot."  # seen
    with contextlib.nullcontext() if tries > 1 else pytest.raises(MachineError, match="exit code 1"):
        up(vagrant, state=state)
    assert len(vagrant.names) == tries


@pytest.mark.parametrize(("mends", "tries"), [(False, 1), (True, 2)])
def test_what_fails_for_good_is_explained(mends: bool, tries: int) -> None:
    vagrant = Scripted(1, 1)
    with pytest.raises(MachineError, match="exit code 1"):
        up(vagrant, mends=mends)
    assert len(vagrant.names) == tries


def test_what_was_stopped_is_not_tried_again() -> None:
    vagrant = Scripted(-15, 0)
    with pytest.raises(MachineError, match="stopped"):
        up(vagrant, cancelled=True, mends=True)
    assert len(vagrant.names) == 1


def test_machines_that_stay_silent_are_a_matter_of_their_consoles() -> None:
    with pytest.raises(MachineError, match="did not answer ssh in time") as caught:
        up(Scripted(None))
    assert "klab logs" in caught.value.hint
    assert "Waiting for machine to boot" in caught.value.details[0]


def test_the_message_is_shown_and_not_where_in_ruby_it_was() -> None:
    frame = "\tfrom /usr/lib/ruby/vagrant/action/warden.rb:48:in `call'\n"
    said = "vm_action.rb:7:in `create': Call to virDomainCreate failed: internal error: cannot limit core file size\n"
    found = explain(Completed(("vagrant", "up"), 1, "==> cp1: Starting domain.\n", said + frame * 40), False)
    assert list(found.details) == ["==> cp1: Starting domain.", said.rstrip()]
