"""Whose firewall rules decide: libvirt's, or those of ufw and Docker."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.host import firewalls

# From /etc/libvirt/network.conf of Debian 13's libvirt 11.3.
DEBIAN = """# Supported settings:
#
#     iptables - use iptables commands to construct the firewall
#     nftables - use nft commands to construct the firewall
#
#   If firewall_backend isn't configured, libvirt will choose the
#   first available backend from the following list:
#
#     [iptables, nftables]
#
#firewall_backend = "iptables"
"""
# The list as builds with the upstream order have it (meson option firewall_backend_priority); transcribed.
UPSTREAM = DEBIAN.replace("[iptables, nftables]", "[nftables, iptables]")
BOTH, NFT_ALONE = {"iptables", "nft"}, {"nft"}


@pytest.mark.parametrize(
    ("text", "installed", "backend"),
    [
        ("", NFT_ALONE, "iptables"),
        (DEBIAN, BOTH, "iptables"),
        (DEBIAN, NFT_ALONE, "nftables"),
        (UPSTREAM, BOTH, "nftables"),
        (UPSTREAM, {"iptables"}, "iptables"),
        (DEBIAN + 'firewall_backend = "nftables"\n', BOTH, "nftables"),
        (UPSTREAM + 'firewall_backend = "iptables"\n', BOTH, "iptables"),
        ("# as it was\n", set(), "iptables"),
    ],
)
def test_the_backend(text: str, installed: set[str], backend: str) -> None:
    assert firewalls.parse_backend(text, installed.__contains__) == backend


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    for folder in ("etc/libvirt", "etc/ufw", "sys/class/net/docker0"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / firewalls.CONFIGURATION).write_text(UPSTREAM)
    (tmp_path / "etc/ufw/ufw.conf").write_text("# a comment\nENABLED=yes\nLOGLEVEL=low\n")
    return tmp_path


def test_both_are_named(machine: Path) -> None:
    assert firewalls.rivals(machine) == ["ufw", "Docker"]
    assert "which ufw and Docker overrule" in firewalls.conflict(machine, BOTH.__contains__)


def test_ufw_that_is_off_and_no_docker_are_none(machine: Path) -> None:
    (machine / "etc/ufw/ufw.conf").write_text("ENABLED=no\n")
    assert "which Docker overrules" in firewalls.conflict(machine, BOTH.__contains__)
    (machine / "sys/class/net/docker0").rmdir()
    assert firewalls.rivals(machine) == []
    assert firewalls.conflict(machine, BOTH.__contains__) == ""


def test_by_iptables_nothing_overrules_libvirt(machine: Path) -> None:
    (machine / firewalls.CONFIGURATION).write_text(DEBIAN)
    assert firewalls.conflict(machine, BOTH.__contains__) == ""


def test_a_machine_without_any_of_them(tmp_path: Path) -> None:
    assert firewalls.conflict(tmp_path, BOTH.__contains__) == ""
