"""What a person reads when `vagrant up` fails. The texts are transcribed from Vagrant 2.3.4's
templates/locales/en.yml and vagrant-libvirt 0.11.2's locales/en.yml; those marked were seen here."""

from __future__ import annotations

import pytest

from lab.errors import Conflict, HostError, LabError, MachineError
from lab.machines.up_failure import explain
from lab.process import Completed

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
        "usermod -aG libvirt",
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
        "holds a name",
        "--name",
    ),
    (
        "operation failed: domain 'x' already exists with uuid cd0e7372; domain 'x' is already defined with uuid",
        Conflict,
        "holds a name",
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
