"""What errors of libvirt mean, by their codes. Codes and texts are from the source of libvirt 11.3."""

from __future__ import annotations

import libvirt
import pytest

from lab.errors import HostError, MachineError
from lab.machines.libvirt.connection import explain

SOCKET = "Failed to connect socket to '/var/run/libvirt/libvirt-sock': "


def error(code: int, domain: int, text: str) -> libvirt.libvirtError:
    made = libvirt.libvirtError(text)
    made.err = (code, domain, text, 2, "", "", "", -1, -1)
    return made


@pytest.mark.parametrize(
    ("code", "domain", "text", "message"),
    [
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, f"{SOCKET}Permission denied", "does not let this user in"),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, f"{SOCKET}Connection refused", "libvirtd does not answer"),
        (libvirt.VIR_ERR_AUTH_UNAVAILABLE, libvirt.VIR_FROM_POLKIT, "no polkit agent", "does not let this user in"),
        (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_FROM_RPC, "authentication failed", "does not let this user in"),
        (libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_FROM_ACCESS, "access denied", "does not let this user in"),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            libvirt.VIR_FROM_RPC,
            "Failed to connect socket to '/var/run/libvirt/virtlogd-sock': No such file or directory",
            "virtlogd does not answer",
        ),
        (
            libvirt.VIR_ERR_SYSTEM_ERROR,
            libvirt.VIR_FROM_STORAGE,
            "Cannot access storage file '/nowhere/x.img' (as uid:64055, gid:64055): Permission denied",
            "cp1 cannot be started",
        ),
        (
            libvirt.VIR_ERR_INTERNAL_ERROR,
            libvirt.VIR_FROM_QEMU,
            "process exited while connecting to monitor: -drive: Could not open '/nowhere/x.img': Permission denied",
            "cp1 cannot be started",
        ),
    ],
)
def test_who_refuses_is_told_by_the_code(code: int, domain: int, text: str, message: str) -> None:
    found = explain("cp1 cannot be started", error(code, domain, text))
    assert isinstance(found, HostError)
    assert message in found.message
    assert found.details[0] == text
    assert ("usermod" in found.hint) is False or "does not let" in found.message


def test_what_libvirt_says_of_other_things_stays_a_matter_of_machines() -> None:
    found = explain("cp1 cannot be started", error(libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_QEMU, "no"))
    assert type(found) is MachineError
