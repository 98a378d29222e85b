"""Reading VBoxManage. Its output here is transcribed from the VirtualBox 7.0 manual (chapter 8) and
src/VBox/Frontends/VBoxManage/VBoxManageInfo.cpp; VirtualBox cannot run where klab is made, so none
of it was recorded."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from lab.machines.protocol import NodeState
from lab.machines.virtualbox import output

LIST = """"klab-demo_cp1" {cd0e7372-2c36-5e67-aba5-542d191bfb1c}
"a {strange} name" {bab2f4c0-2c36-5e67-aba5-542d191bfb1c}
"<inaccessible>" {11111111-2c36-5e67-aba5-542d191bfb1c}
"""

INFO = """name="klab-demo_cp1"
groups="/"
ostype="Debian (64-bit)"
UUID="cd0e7372-2c36-5e67-aba5-542d191bfb1c"
hardwareuuid="cd0e7372-2c36-5e67-aba5-542d191bfb1c"
memory=2048
cpus=2
VMState="{state}"
VMStateChangeTime="2026-11-21T02:40:00.000000000"
storagecontrollername0="SATA"
storagecontrollertype0="IntelAhci"
"SATA-0-0"="/home/me/VirtualBox VMs/klab-demo_cp1/box-disk001.vmdk"
"SATA-ImageUUID-0-0"="b2d1f7c0-0000-4000-8000-000000000000"
"SATA-1-0"="/home/me/labs/demo/seeds/cp1.iso"
"SATA-ImageUUID-1-0"="c2d1f7c0-0000-4000-8000-000000000000"
"SATA-IsEjected-1-0"="off"
nic1="nat"
macaddress1="525400D2DADB"
description="first line
klab lab cb7b241c-70ce-456d-a4d8-2e6b37ed0cff seat 0 epoch 1.5"
GuestMemoryBalloon=0
"""


def test_machines_are_listed_by_name() -> None:
    found = output.parse_machines(LIST)
    assert found["klab-demo_cp1"] == "cd0e7372-2c36-5e67-aba5-542d191bfb1c"
    assert found["a {strange} name"] == "bab2f4c0-2c36-5e67-aba5-542d191bfb1c"


def test_interfaces_without_an_address_have_no_network() -> None:
    told = "Name:            vboxnet0\nIPAddress:       \nNetworkMask:     \n\n"
    assert output.parse_interfaces(told) == {}
    told += "Name:            vboxnet1\nIPAddress:       192.168.57.9\nNetworkMask:     255.255.255.0\n\n"
    assert output.parse_interfaces(told) == {"vboxnet1": IPv4Network("192.168.57.0/24")}


def test_info_is_read_with_quoted_keys_and_values_over_several_lines() -> None:
    info = output.parse_info(INFO)
    assert info["memory"] == "2048"
    assert info["SATA-IsEjected-1-0"] == "off"
    assert info["description"].startswith("first line\nklab lab cb7b241c")
    assert info["GuestMemoryBalloon"] == "0"


def test_quotes_and_backslashes_are_read_as_they_were() -> None:
    """outputMachineReadableString puts a backslash before them; the serial port's line is printed without."""
    told = (
        'name="a \\"b\\" \\\\ c"\nuartmode1="file,/home/me/"x"/console.log"\n'
        '"SATA-1-0"="/home/me/a=b/cp1.iso"\ndescription="one\n\\"two\\"=x\nthree"\nGuestMemoryBalloon=0\n'
    )
    assert output.parse_info(told) == {
        "name": 'a "b" \\ c',
        "uartmode1": 'file,/home/me/"x"/console.log',
        "SATA-1-0": "/home/me/a=b/cp1.iso",
        "description": 'one\n"two"=x\nthree',
        "GuestMemoryBalloon": "0",
    }


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("running", NodeState.RUNNING),
        ("paused", NodeState.PAUSED),
        ("saved", NodeState.PAUSED),
        ("poweroff", NodeState.STOPPED),
        ("onlinesnapshotting", NodeState.RUNNING),
        ("deletingsnapshotlivepaused", NodeState.PAUSED),
        ("aborted", NodeState.CRASHED),
        ("gurumeditation", NodeState.CRASHED),
        ("a state of next year", NodeState.STOPPED),
    ],
)
def test_states(word: str, state: NodeState) -> None:
    assert output.state_of(output.parse_info(INFO.replace("{state}", word))) == state


def test_the_seeds_drive_is_found_and_no_other() -> None:
    assert output.dvd_slots(output.parse_info(INFO), "cp1.iso") == [("SATA", "1", "0")]
    assert output.dvd_slots(output.parse_info(INFO), "w1.iso") == []
