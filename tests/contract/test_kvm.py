"""The probe of KVM through a real libvirtd: what its guest reports, and that nothing of it stays."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from contract.conftest import why_no_libvirt

from lab.host.network import host_network
from lab.machines.libvirt.connection import connect
from lab.machines.libvirt.kvm import LibvirtQemu
from lab.store import Home

# Emulated, on a host that does other things: some two seconds when it is idle.
SECONDS = 60.0


def left(libvirt: Any) -> list[str]:
    return [each.name() for each in (*libvirt.listAllDomains(), *libvirt.listAllStoragePools())]


def test_the_probe_guest_reports_its_work_through_libvirt(request: pytest.FixtureRequest) -> None:
    if why := why_no_libvirt():
        pytest.skip(why)
    home: Home = request.getfixturevalue("real_home")
    with host_network(home), contextlib.closing(connect()) as libvirt:
        before = left(libvirt)
        assert LibvirtQemu(libvirt).run_guest("qemu", SECONDS) is None
        late = LibvirtQemu(libvirt).run_guest("qemu", 0.1)
        assert late is not None
        assert late.overdue
        assert left(libvirt) == before
