"""Two people with a lab each, beside Docker's and ufw's rules, a VPN and a machine that is none of klab's.

Each of the two leads a lab through the machines' contract at the same time; nothing of the others is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.workstation import CLONE, USER, Workstation
from support.workstation_view import VIRSH, look, repair

SECONDS = 3600
STUDENT = "student"
# What Docker 28 loads at its start, transcribed from `iptables-save` of a host with one bridge network.
DOCKER = """
iptables -P FORWARD DROP
iptables -N DOCKER
iptables -N DOCKER-FORWARD
iptables -N DOCKER-USER
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-FORWARD
iptables -A DOCKER-FORWARD -o docker0 -j DOCKER
iptables -A DOCKER ! -i docker0 -o docker0 -j DROP
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip link set docker0 up
"""
UFW = "ufw allow ssh && ufw --force enable"
# Whether a link is up just now is not the routes' matter.
ROUTES = "ip route | sed 's/ linkdown//; s/ *$//'"
VPN = """
ip tuntap add dev tun0 mode tun
ip addr add 10.8.0.2/24 dev tun0
ip link set tun0 up
ip route add 0.0.0.0/1 dev tun0
ip route add 128.0.0.0/1 dev tun0
ip route add 192.168.0.0/16 dev tun0
"""
FOREIGN = """<domain type="qemu">
  <name>foreign</name>
  <memory unit="MiB">32</memory>
  <os><type arch="x86_64">hvm</type></os>
  <devices>
    <disk type="file" device="disk">
      <source file="/var/lib/libvirt/images/foreign.img"/><target dev="vda" bus="virtio"/>
    </disk>
    <interface type="network"><source network="default"/></interface>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def machine(new_workstation: Callable[[str], Workstation], tiny_box: Path) -> Workstation:
    found = new_workstation("trixie")
    found.run(f"useradd --create-home --shell /bin/bash --groups libvirt,kvm {STUDENT}", user="root")
    found.run(
        f"chmod 700 /home/{STUDENT}; echo '{STUDENT} ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/{STUDENT}", user="root"
    )
    found.put_clone(STUDENT)
    found.run(
        f"cp -a {CLONE}/.venv /home/{STUDENT}/klab/ && chown -R {STUDENT}: /home/{STUDENT}/klab/.venv", user="root"
    )
    for user in (USER, STUDENT):
        target = f"/home/{user}/klab/.pytest_cache/d/{tiny_box.name}"
        found.put(tiny_box, [path.name for path in tiny_box.iterdir()], target, owner=user)
    repair(found)
    return found


def contract(machine: Workstation, user: str, seat: int) -> str:
    """Lead a lab of this seat through the contract; returns what pytest printed, or fails with it."""
    words = f"PYTHONPATH=$PWD KLAB_LIBVIRT=system KLAB_TEST_SEAT={seat} .venv/bin/python -m pytest -x -q"
    words += " tests/contract/test_machines.py -k 'not fake'"
    done = machine.run(words, user=user, check=False, seconds=SECONDS)
    assert done.returncode == 0, f"{user}: {done.stdout[-20_000:]}"
    return done.stdout


def test_nobody_touches_what_is_not_his_own(machine: Workstation) -> None:
    machine.run(f"{VIRSH} net-start default", user="root")
    for script in (DOCKER, UFW, VPN):
        machine.run(script, user="root")
    machine.run("truncate -s 1M /var/lib/libvirt/images/foreign.img", user="root")
    machine.run(f"{VIRSH} define /dev/stdin && {VIRSH} start foreign", user="root", stdin=FOREIGN)
    routes = machine.run(ROUTES).stdout
    before = look(machine)
    with ThreadPoolExecutor() as pool:
        texts = list(pool.map(contract, (machine, machine), (USER, STUDENT), (1, 2)))
    assert all(" passed" in text for text in texts)
    assert look(machine) == before
    assert machine.run(ROUTES).stdout == routes
    assert machine.run(f"{VIRSH} domstate foreign").stdout.strip() == "running"
    # A workstation that is shut down waits for its machines.
    machine.run(f"{VIRSH} destroy foreign")
