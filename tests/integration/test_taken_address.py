"""Who answers at an address: asked for real, in network namespaces that the test makes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

# A bridge's worth of network: one end here, the other in a namespace of its own, as another machine would be.
_NEIGHBOUR = """
set -e
ip link set lo up
ip link add here type veth peer name there
ip addr add 192.168.56.1/24 dev here
ip link set here up
unshare --net sleep infinity &
other=$!
trap 'kill $other' EXIT
sleep 1
ip link set there netns $other
nsenter -t $other -n ip addr add 192.168.56.10/24 dev there
nsenter -t $other -n ip link set there address 02:00:00:00:00:10 up
"""


def asked(set_up: str, *addresses: str) -> list[str]:
    """What `answering` says of each address, in a network of the test's own."""
    code = (
        "from ipaddress import IPv4Address; from lab.host.capacity import answering\n"
        f"for address in {addresses!r}: print(answering(IPv4Address(address)))"
    )
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", f'{set_up}\n"$0" -c "$1"', sys.executable, code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split("\n")[:-1]


def test_another_machine_is_known_by_its_mac_and_an_empty_address_by_silence() -> None:
    assert asked(_NEIGHBOUR, "192.168.56.10", "192.168.56.77") == ["02:00:00:00:00:10", "None"]


def test_an_address_of_this_machine_is_said_to_be_so() -> None:
    assert asked(
        "ip link set lo up; ip addr add 192.168.56.10/32 dev lo",
        "192.168.56.10",
    ) == ["this machine"]


def test_without_a_way_there_nothing_is_sent() -> None:
    assert asked("true", "192.168.56.10") == ["None"]
