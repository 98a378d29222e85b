"""Two plain nodes on real KVM with AppArmor enforcing, led by an ordinary user, each step checked from outside klab.

The workstation is itself emulated; where its own kernel dies, `MachineDied` says so, and klab is not at fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.kvm_workstation import KvmWorkstation, kvm_workstation
from support.workstation import USER
from support.workstation_view import VIRSH, View, act, first_look, klab, look

pytestmark = pytest.mark.incremental

NAME = "lesson"
NODES = ["cp1", "w1"]
SCENARIO = """version: 1
name: two
topology:
  control_planes: 1
  workers: 1
cpus: 1
memory: 1Gi
disk: 10G
bootstrap: none
"""
DENIED = "journalctl --dmesg --quiet --output=cat --grep='apparmor=\"DENIED\"' || true"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvmWorkstation]:
    with kvm_workstation(tmp_path_factory.mktemp("kvm")) as found:
        found.run(f"cat > ~{USER}/two.yaml", stdin=SCENARIO)
        yield found


@pytest.fixture(scope="module")
def before(machine: KvmWorkstation) -> View:
    return first_look(machine)


@pytest.fixture(autouse=True)
def alive(machine: KvmWorkstation) -> Iterator[None]:
    """A test that failed because the machine died says so."""
    yield
    machine.check_alive()


def status(machine: KvmWorkstation) -> Any:
    return json.loads(klab(machine, "status", NAME, "--json"))


def on_node(machine: KvmWorkstation, node: str, command: str) -> str:
    return klab(machine, "ssh", NAME, node, "--", f"'{command}'").strip()


def check_time(machine: KvmWorkstation) -> None:
    """Each node follows the machine's own clock, through KVM's PTP device."""
    for node in NODES:
        # chrony chooses its source some measurements after its start.
        on_node(machine, node, "chronyc waitsync 60 0.5 0 2")
        assert on_node(machine, node, "systemctl is-active chrony") == "active"
        assert "PHC0" in on_node(machine, node, "chronyc -n sources")
        there = float(on_node(machine, node, "date +%s"))
        here = float(machine.run("date +%s").stdout)
        assert abs(here - there) < 30
    assert status(machine)["time_source"] == "host"


def test_apparmor_is_there_and_doctor_finds_kvm(machine: KvmWorkstation, before: View) -> None:
    assert machine.run("cat /sys/module/apparmor/parameters/enabled").stdout.strip() == "Y"
    assert "libvirtd" in machine.run("cat /sys/kernel/security/apparmor/profiles", user="root").stdout
    text = klab(machine, "doctor")
    assert "KVM runs a guest" in text
    assert "this machine can run labs" in text
    assert before.foreign == ()


def test_create(machine: KvmWorkstation) -> None:
    act(machine, "create", "~/two.yaml", "--name", NAME)
    for node in NODES:
        domain = f"klab-{NAME}_{node}"
        assert "<domain type='kvm'" in machine.run(f"{VIRSH} dumpxml {domain}").stdout
        uuid = machine.run(f"{VIRSH} domuuid {domain}").stdout.strip()
        profiles = machine.run("cat /sys/kernel/security/apparmor/profiles", user="root").stdout
        assert f"libvirt-{uuid} (enforce)" in profiles
    check_time(machine)


def test_snapshot_and_restore(machine: KvmWorkstation) -> None:
    on_node(machine, "w1", "echo first > /tmp/marker")
    act(machine, "snapshot", "take", NAME, "one")
    on_node(machine, "w1", "echo second > /tmp/marker")
    act(machine, "restore", NAME, "one")
    assert on_node(machine, "w1", "cat /tmp/marker") == "first"
    check_time(machine)


def test_reboot(machine: KvmWorkstation) -> None:
    boots = {node: on_node(machine, node, "cat /proc/sys/kernel/random/boot_id") for node in NODES}
    act(machine, "reboot", NAME)
    for node in NODES:
        assert on_node(machine, node, "cat /proc/sys/kernel/random/boot_id") != boots[node]
    check_time(machine)


def test_stop_and_start(machine: KvmWorkstation) -> None:
    act(machine, "stop", NAME)
    assert look(machine).guests == ()
    act(machine, "start", NAME)
    check_time(machine)


def test_destroy_leaves_nothing_and_nothing_was_denied(machine: KvmWorkstation, before: View) -> None:
    act(machine, "destroy", "-y", NAME)
    machine.run("rm -f ~/two.yaml")
    assert look(machine) == before
    assert re.sub(r"\s+", " ", machine.run(DENIED, user="root").stdout) == ""
