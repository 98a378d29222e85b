"""Whether a lab fits beside what else its host routes: with the kernel's routes, in namespaces of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

_UPLINK = """
set -e
ip link set lo up
ip link add eth0 type bridge
ip addr add 192.0.2.2/24 dev eth0
ip link set eth0 up
ip route add default via 192.0.2.1
"""
_TUNNEL = """
ip tuntap add dev tun0 mode tun
ip addr add 10.8.0.2/24 dev tun0
ip link set tun0 up
"""
_HALVES = f"""{_TUNNEL}
ip route add 0.0.0.0/1 via 10.8.0.1
ip route add 128.0.0.0/1 via 10.8.0.1
"""
_COMPANY = f"""{_TUNNEL}
ip route add 172.16.0.0/12 via 10.8.0.1
ip route add 192.168.0.0/16 via 10.8.0.1
ip route add 10.0.0.0/8 via 10.8.0.1
"""
_BRIDGE = """
ip link add {name} type bridge
ip addr add {address} dev {name}
ip link set {name} up
"""
# As VirtualBox's stays behind: up, without carrier.
_VBOXNET = _BRIDGE.format(name="vboxnet0", address="192.168.56.1/24")
_DOCKER = _BRIDGE.format(name="docker0", address="172.17.0.1/16")
_DOCKERS = _DOCKER + "".join(_BRIDGE.format(name=f"br-{n}", address=f"172.{n}.0.1/16") for n in range(28, 32))
_OTHER_LAB = _BRIDGE.format(name="virbr1", address="192.168.57.1/24")
_DROPPED = """
ip route add blackhole 192.168.56.0/26
"""

_LOOK = """
import json
from pathlib import Path
from lab.app.plans import check
from lab.host.capacity import LabNetworks, check_fits, home_room, host_facts, warnings
from lab.host.local import LocalHost
from lab.store import Home
plan, host = check("1m2w"), LocalHost(Home(Path("/tmp")))
facts, networks = host_facts(host, home_room(host)), LabNetworks.bridged(plan)
apart = [line for line in check_fits(plan, facts, networks) if "route" in line or "gateway" in line]
print(json.dumps([apart, [line for line in warnings(plan, facts, networks) if "route" in line]]))
"""


def looked(set_up: str) -> tuple[list[str], list[str]]:
    """What keeps 1m2w from running there, and what would be felt; of routes alone."""
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", f'{_UPLINK}{set_up}\n"$0" -c "$1"', sys.executable, _LOOK],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    problems, felt = json.loads(done.stdout)
    return problems, felt


@pytest.mark.parametrize("set_up", ["", _HALVES, _DOCKER, _OTHER_LAB], ids=["plain", "halves", "docker", "another lab"])
def test_a_lab_fits_beside(set_up: str) -> None:
    assert looked(set_up) == ([], [])


def test_a_companys_vpn_is_warned_about() -> None:
    problems, felt = looked(_COMPANY)
    assert problems == []
    assert [line.partition(" lies within ")[2].partition(":")[0] for line in felt] == [
        "the host's route to 192.168.0.0/16 through tun0",
        "the host's route to 172.16.0.0/12 through tun0",
    ]


@pytest.mark.parametrize(
    ("set_up", "words"),
    [
        (_VBOXNET, "192.168.56.0/24 through vboxnet0; another --seat or network.cidr"),
        (_DOCKERS, "through br-"),
        (_DROPPED, "192.168.56.0/26, which drops packets; another --seat or network.cidr"),
    ],
    ids=["vboxnet0", "many of Docker's", "blackhole"],
)
def test_what_has_the_labs_addresses_is_refused(set_up: str, words: str) -> None:
    (problem,), felt = looked(set_up)
    assert words in problem
    assert felt == []
