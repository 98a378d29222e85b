"""The firewall rules of the system's libvirtd, and other firewalls on this machine that make them void.

libvirt accepts what its networks need: DHCP and DNS from the guests, their way out. With iptables that decides. With
nftables it does not: a packet that one table has accepted still passes the others, and may be dropped in one of ufw's
or Docker's (nft(8), VERDICT STATEMENTS: accept ends the evaluation of that base chain alone). libvirt has nftables
since 10.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lab.process import have

ROOT = Path("/")
CONFIGURATION = "etc/libvirt/network.conf"
# The value that is set; and, in the file's comments, the order in which this build of libvirt tries its backends.
_SET = re.compile(r'^[ \t]*firewall_backend[ \t]*=[ \t]*"(\w{1,20})"', re.MULTILINE)
_ORDER = re.compile(r"^#[ \t]+\[(iptables|nftables)(?:, ?(iptables|nftables))?\]", re.MULTILINE)
_PROGRAMS = {"iptables": "iptables", "nftables": "nft"}
_UFW_ENABLED = re.compile(r"^ENABLED=[\"']?yes\b", re.MULTILINE | re.IGNORECASE)


def parse_backend(configuration: str, there: Callable[[str], bool]) -> str:
    """The backend that libvirt uses: iptables or nftables.

    Args:
        configuration: libvirt's network.conf; empty where this libvirt has none, and so knows iptables alone.
        there: whether a program is installed.
    """
    if chosen := _SET.search(configuration):
        return chosen[1]
    order = _ORDER.search(configuration)
    tried = [each for each in order.groups() if each] if order else ["iptables"]
    return next((backend for backend in tried if there(_PROGRAMS[backend])), tried[0])


def rivals(root: Path = ROOT) -> list[str]:
    """The other firewalls on this machine that drop what they do not know. firewalld, which libvirt tells, is none.

    Args:
        root: the root of the file system; another one for tests.
    """
    found = ["ufw"] if _UFW_ENABLED.search(_text(root / "etc/ufw/ufw.conf")) else []
    # Docker sets the policy of the chain FORWARD to DROP (docs.docker.com/engine/network/packet-filtering-firewalls).
    return found + (["Docker"] if (root / "sys/class/net/docker0").exists() else [])


def conflict(root: Path = ROOT, there: Callable[[str], bool] = have) -> str:
    """Why guests on the system's libvirtd may have no addresses, or no way out; empty where nothing is known."""
    others = rivals(root)
    if not others or parse_backend(_text(root / CONFIGURATION), there) != "nftables":
        return ""
    return f"libvirt's firewall rules are nftables', which {' and '.join(others)} overrule{'s' * (len(others) == 1)}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
